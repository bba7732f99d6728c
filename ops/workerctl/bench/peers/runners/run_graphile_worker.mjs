// graphile-worker: 100 jobs at a time, a local queue of 2000, completions in batches.
import { createRequire } from "node:module";
import { EventEmitter } from "node:events";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const environment = createRequire(`${process.env.BENCH_ENVIRONMENT}/`);
const { Logger, makeWorkerUtils, run } = await import(pathToFileURL(environment.resolve("graphile-worker")));

const CONNECTION = process.env.DATABASE_URL;
const CHUNK = 20_000; // jobs a call
const logger = new Logger(() => (level, message) => level === "error" && process.stderr.write(`${message}\n`));
const commands = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const now = () => Number(process.hrtime.bigint()) / 1e9;
const sleepUntil = (moment) => new Promise((done) => setTimeout(done, Math.max(0, (moment - now()) * 1000)));
const say = (event, facts = {}) => process.stdout.write(`${JSON.stringify({ event, at: now(), ...facts })}\n`);

async function withUtils(use) {
  const utils = await makeWorkerUtils({ connectionString: CONNECTION, logger });
  try {
    return await use(utils);
  } finally {
    await utils.release();
  }
}

const prepare = () => withUtils((utils) => utils.migrate());

const specs = (jobs) => Array.from({ length: jobs }, () => ({ identifier: "noop", payload: {} }));

// By its SQL function, which is its way into a transaction of the caller.
const addJobs = (client, jobs) =>
  client.query(
    "select id from graphile_worker.add_jobs(array(select json_populate_recordset(null::graphile_worker.job_spec, $1::json)))",
    [JSON.stringify(specs(jobs))],
  );

async function inTransaction(client, work) {
  await client.query("begin");
  await work();
  await client.query("commit");
}

// Enqueue so many in one transaction; returns when its commit was known.
const fill = ({ jobs }) =>
  withUtils((utils) =>
    utils.withPgClient(async (client) => {
      await inTransaction(client, async () => {
        for (let first = 0; first < jobs; first += CHUNK) await addJobs(client, Math.min(CHUNK, jobs - first));
      });
      return now();
    }),
  );

// Seconds.
const enqueue = ({ way, jobs, coroutines, in_each: inEach }) =>
  withUtils((utils) =>
    utils.withPgClient(async (client) => {
      const one = () => utils.addJob("noop", {});
      const inside = () => client.query("select graphile_worker.add_job('noop', '{}'::json)");
      const inTurn = async (call, calls) => {
        for (let number = 0; number < calls; number++) await call();
      };
      const inTransactions = async (each) => {
        for (let first = 0; first < jobs; first += each)
          await inTransaction(client, () => inTurn(inside, Math.min(each, jobs - first)));
      };
      const together = () =>
        Promise.all(
          Array.from({ length: coroutines }, (_, number) => inTurn(one, Math.floor(jobs / coroutines) + (number < jobs % coroutines))),
        );
      await one(); // the first call of a connection plans its statements: it is not counted
      const work = {
        single: () => inTurn(one, jobs),
        transaction: () => inTransactions(1),
        transaction_jobs: () => inTransactions(inEach),
        coroutines: together,
        many: () => utils.addJobs(specs(jobs)),
        many_transaction: () => inTransaction(client, () => addJobs(client, jobs)),
      };
      const began = now();
      await work[way]();
      return now() - began;
    }),
  );

// Enqueue jobs that write down when they start, at an even rate; returns when the commit of each was known here.
const trickle = ({ jobs, rate, at_once: atOnce }) =>
  withUtils(async (utils) => {
    const some = (numbers) =>
      numbers.length === 1
        ? utils.addJob("stamp", { number: numbers[0] })
        : utils.addJobs(numbers.map((number) => ({ identifier: "stamp", payload: { number } })));
    await some([-1]); // plans the statements
    const committed = {};
    const began = now();
    for (let first = 0; first < jobs; first += atOnce) {
      await sleepUntil(began + first / rate);
      const numbers = Array.from({ length: Math.min(atOnce, jobs - first) }, (_, number) => first + number);
      await some(numbers);
      const at = now();
      for (const number of numbers) committed[number] = at;
    }
    return committed;
  });

// Work until the next command.
async function work({ refetch_delay: refetchDelay }) {
  let runs = 0;
  const starts = {};
  const count = () => {
    if (++runs === 1) say("first");
  };
  const events = new EventEmitter();
  events.once("pool:listen:success", () => say("ready"));
  say("begin");
  const runner = await run({
    noHandleSignals: true,
    events,
    taskList: {
      noop: async () => count(),
      stamp: async ({ number }) => {
        starts[number] = now();
        count();
      },
    },
    preset: {
      worker: {
        connectionString: CONNECTION,
        logger,
        concurrentJobs: 100,
        localQueue: { size: 2000, ...(refetchDelay && { refetchDelay: { durationMs: refetchDelay } }) },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
  await Promise.race([runner.promise, commands.next()]);
  await runner.stop();
  say("end", { runs, starts });
}

const actions = { prepare, fill, enqueue, trickle, work };
process.on("SIGTERM", () => process.exit());
for (let line = await commands.next(); !line.done; line = await commands.next()) {
  const { do: name, ...command } = JSON.parse(line.value);
  say(name, { answer: (await actions[name](command)) ?? null });
}
