# Stand-ins for the images of Prometheus and Alertmanager in deploy/compose.yaml, made of Debian's packages: the same
# user, folders, entry point, and busybox' wget.
ARG BASE
FROM $BASE AS programs
RUN apt-get update -qq && \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends busybox prometheus prometheus-alertmanager >/dev/null && \
    ln -s /bin/busybox /usr/local/bin/wget && \
    install -d -o nobody -g nogroup /prometheus /alertmanager
USER nobody

FROM programs AS prometheus
VOLUME /prometheus
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]

FROM programs AS alertmanager
VOLUME /alertmanager
WORKDIR /alertmanager
ENTRYPOINT ["/usr/bin/prometheus-alertmanager"]
