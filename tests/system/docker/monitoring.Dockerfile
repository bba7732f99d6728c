# Stand-ins for the public images of the monitoring, from Debian's packages: same entry points, users and folders.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS packages
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends prometheus prometheus-alertmanager prometheus-postgres-exporter wget > /dev/null \
 && ln -s /usr/bin/prometheus-alertmanager /bin/alertmanager \
 && ln -s /usr/bin/prometheus-postgres-exporter /bin/postgres_exporter \
 && rm -r /var/lib/apt/lists /var/cache/apt /usr/bin/promtool /usr/bin/amtool \
 && install -d -o nobody -g nogroup /prometheus /alertmanager
USER nobody

FROM packages AS prometheus
WORKDIR /prometheus
ENTRYPOINT ["prometheus"]

FROM packages AS alertmanager
WORKDIR /alertmanager
ENTRYPOINT ["alertmanager"]

FROM packages AS exporter
ENTRYPOINT ["postgres_exporter"]
