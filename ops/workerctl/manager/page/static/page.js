// Times in the reader's zone, news of what is shown, and a question before what cannot be undone. Reading works without.
"use strict";

const zone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const brief = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const date = new Date(time.dateTime);
    const short = date.toDateString() === new Date().toDateString() ? clock : brief;
    time.title = time.dateTime;
    time.textContent = (time.closest(".axis") ? short : zone).format(date);
  }
}

function place(element) {
  // where the focus was, to be found again in what comes in its place
  if (!element || !element.matches("a, button, input")) return null;
  for (const name of ["formaction", "href", "name"]) {
    if (element.hasAttribute(name)) return `${element.localName}[${name}="${CSS.escape(element.getAttribute(name))}"]`;
  }
  return null;
}

function follow(live) {
  const said = document.getElementById("said");
  const source = new EventSource(`/events?view=${encodeURIComponent(live.dataset.view)}`);
  source.onmessage = (event) => {
    said.textContent = "";
    const active = live.contains(document.activeElement) ? document.activeElement : null;
    if (active && active.matches("input, select")) return; // somebody writes
    if (!getSelection().isCollapsed && live.contains(getSelection().anchorNode)) return; // or copies
    const focus = place(active);
    const scrolled = [...live.querySelectorAll("pre, .wide")].map((each) => [each.scrollTop, each.scrollLeft]);
    live.innerHTML = JSON.parse(event.data); // rendered and escaped by the server
    [...live.querySelectorAll("pre, .wide")].forEach((each, n) => {
      if (scrolled[n]) [each.scrollTop, each.scrollLeft] = scrolled[n];
    });
    localTimes(live);
    if (focus) live.querySelector(focus)?.focus();
  };
  source.onerror = () => { said.textContent = "No connection to the manager: what is shown may be old."; };
  addEventListener("pagehide", () => source.close());
}

document.addEventListener("click", (event) => {
  const question = event.target.closest("[data-confirm]")?.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
localTimes(document);
const live = document.getElementById("live");
if (live) follow(live);
