# SPDX-License-Identifier: Apache-2.0
"""Real S3 servers on loopback, for tests and benches.

    with Versitygw(folder) as server:
        server.client().create_bucket(Bucket="data")

Each keeps its data below the folder that it is given, so that it can be killed and started again.
requests() is the server's own count of what reached it, by kind; `tls` makes a certificate authority
with openssl and serves https, with the authority's certificate in server.ca.  Python's standard
library and boto3 are all that is needed; tests/servers/install builds the servers.

From a shell:  python3 -m servers.s3 versitygw|minio FOLDER [--port N] [--tls]   (in tests/)
"""

import argparse
import collections
import fcntl
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "zcache")
BIN = os.path.join(CACHE, "bin")

ACCESS_KEY = "zcachetest"
SECRET_KEY = "zcachetestsecret"
REGION = "us-east-1"


GIVEN = set()
CLAIMS = []  # the file whose byte N is locked by the process of tests that has port N


def free_port():
    """A port for a server that is started in a moment, or later again: nobody else's until this process ends.

    Below those that the kernel gives to who connects (ip_local_port_range): one of these could be
    taken by a client until the server binds it.
    """
    if not CLAIMS:
        os.makedirs(CACHE, exist_ok=True)
        CLAIMS.append(open(os.path.join(CACHE, "ports"), "w", encoding="ascii"))  # pylint: disable=consider-using-with
    for _ in range(1000):
        port = random.randrange(10000, 32000)
        if port in GIVEN:
            continue
        with socket.socket() as s:
            try:
                fcntl.lockf(CLAIMS[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
                s.bind(("", port))
            except OSError:
                continue
        GIVEN.add(port)
        return port
    raise RuntimeError("no free port between 10000 and 32000")


def wait_for_port(port, process=None, seconds=30, host="127.0.0.1"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")


def make_authority(folder, names=("127.0.0.1",)):
    """A certificate authority and a server's certificate made by it -> (ca, cert, key)."""
    os.makedirs(folder, exist_ok=True)
    ca, ca_key = os.path.join(folder, "ca.pem"), os.path.join(folder, "ca.key")
    cert, key = os.path.join(folder, "public.crt"), os.path.join(folder, "private.key")
    if os.path.exists(cert):
        return ca, cert, key
    req, ext = os.path.join(folder, "server.csr"), os.path.join(folder, "server.ext")
    with open(ext, "w", encoding="ascii") as f:
        f.write("subjectAltName=" + ",".join(
            ("IP:" if re.fullmatch(r"[0-9.]+", n) else "DNS:") + n for n in names) + "\n")
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for command in (
        ["req", "-x509", *ec, "-days", "60", "-subj", "/CN=zcache test authority", "-keyout", ca_key,
         "-out", ca, "-addext", "keyUsage=critical,keyCertSign"],
        ["req", *ec, "-subj", "/CN=zcache test server", "-keyout", key, "-out", req],
        ["x509", "-req", "-in", req, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "60",
         "-extfile", ext, "-out", cert],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return ca, cert, key


class Server:
    """What the two have in common.  Not started by the constructor; `with` starts and stops it."""

    name = None

    def __init__(self, folder, port=None, tls=False, host="127.0.0.1", prefix=()):
        self.folder = os.path.abspath(folder)
        self.host, self.port, self.tls = host, port or free_port(), tls
        self.prefix = list(prefix)  # e.g. ["ip", "netns", "exec", NAME]
        self.data = os.path.join(self.folder, "data")
        self.log = os.path.join(self.folder, "log")
        self.process = None
        self.ca = None
        os.makedirs(self.data, exist_ok=True)
        if tls:
            self.ca, self.cert, self.key = make_authority(os.path.join(self.folder, "certs"), (host,))

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def start(self):
        binary = os.path.join(BIN, self.name)
        if not os.path.exists(binary):
            raise RuntimeError(f"{binary} is missing: run tests/servers/install")
        command, env = self.command(binary)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **env})
        if not self.prefix:
            wait_for_port(self.port, self.process, host=self.host)
            self.wait_until_ready()
        return self

    def wait_until_ready(self):
        pass

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def kill(self):
        self.stop(signal.SIGKILL)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    def client(self, access_key=ACCESS_KEY, secret_key=SECRET_KEY):
        import boto3
        from botocore.config import Config
        from botocore.handlers import add_expect_header
        client = boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=access_key,
            aws_secret_access_key=secret_key, region_name=REGION, verify=self.ca or False,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 3},
                          max_pool_connections=32))
        # "Expect: 100-continue" before an empty body leaves a connection to MinIO stuck for 30 s.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client

    def env(self):
        """The environment that a client of this server needs."""
        env = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
               "AWS_REGION": REGION, "AWS_ENDPOINT_URL": self.url, "AWS_EC2_METADATA_DISABLED": "true"}
        if self.ca:
            env["AWS_CA_BUNDLE"] = self.ca
        return env

    def requests(self):
        """Counter of requests by kind: get, list, head, put, other."""
        raise NotImplementedError


class Versitygw(Server):
    """versitygw with its posix backend: each folder of `data` is a bucket."""

    name = "versitygw"
    # 06:43:26 | vgw | 200 |     748.125µs | 127.0.0.1 | GET | /bucket1 | - | list-type=2&...
    line = re.compile(rb"^\d\d:\d\d:\d\d \| vgw \| (\d+) \|[^|]*\|[^|]*\| ([A-Z]+) \| (.*)$")

    def command(self, binary):
        command = [binary, "--port", f"{self.host}:{self.port}", "--keep-alive"]
        if self.tls:
            command += ["--cert", self.cert, "--key", self.key]
        return command + ["posix", self.data], {
            "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}

    def requests(self):
        time.sleep(0.2)  # a line is written after its response was sent
        counts = collections.Counter()
        with open(self.log, "rb") as f:
            for line in f:
                m = self.line.match(line)
                if not m:
                    continue
                method, rest = m.group(2), m.group(3)
                if method == b"GET":
                    counts["list" if b"list-type=2" in rest.rsplit(b"|", 1)[-1] else "get"] += 1
                else:
                    counts[{b"HEAD": "head", b"PUT": "put"}.get(method, "other")] += 1
        return counts


class Minio(Server):
    """MinIO on one folder."""

    name = "minio"
    sample = re.compile(r'^minio_api_requests_total\{name="([A-Za-z0-9]+)".*\} (\S+)$', re.M)
    kinds = {"GetObject": "get", "ListObjectsV2": "list", "HeadObject": "head", "PutObject": "put"}

    def command(self, binary):
        command = [binary, "server", "--quiet", "--address", f"{self.host}:{self.port}"]
        command += ["--certs-dir", os.path.join(self.folder, "certs")]
        return command + [self.data], {
            "MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "MINIO_PROMETHEUS_AUTH_TYPE": "public", "MINIO_BROWSER": "off", "MINIO_UPDATE": "off",
            "CI": "true"}

    def fetch(self, path):
        import ssl
        context = ssl.create_default_context(cafile=self.ca) if self.ca else None
        with urllib.request.urlopen(self.url + path, timeout=10, context=context) as f:
            return f.read().decode()

    def wait_until_ready(self):
        end = time.monotonic() + 30
        while True:
            try:
                self.fetch("/minio/health/live")
                # The first requests can still meet a server that says it is not initialised.
                self.client().list_buckets()
                return
            except Exception:  # pylint: disable=broad-except
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def requests(self):
        time.sleep(0.2)
        counts = collections.Counter()
        # Version 3 of the metrics is counted at once, version 2 up to ten seconds later.
        for name, value in self.sample.findall(self.fetch("/minio/metrics/v3/api/requests")):
            counts[self.kinds.get(name, "other")] += int(float(value))
        return counts


KINDS = {"versitygw": Versitygw, "minio": Minio}


class FaultProxy:
    """tests/servers/faultproxy.c in front of a server that speaks plain http."""

    def __init__(self, server, port=None):
        import json
        self.json = json
        self.port = port or free_port()
        self.process = subprocess.Popen(
            [os.path.join(HERE, "faultproxy"), str(self.port), str(server.port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("faultproxy did not start")
        self.url = f"http://127.0.0.1:{self.port}"

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if answer == "what?":
            raise ValueError(f"faultproxy does not understand: {line}")
        return answer

    def fault(self, kind, every=1, times=0, match="-"):
        self.say(f"fault {kind} {every} {times} {match}")

    def swap(self, what, by):
        self.say(f"swap {what} {by}")

    def delay(self, ms):
        self.say(f"delay {ms}")

    def rate(self, bytes_per_second):
        self.say(f"rate {bytes_per_second}")

    def clear(self):
        self.say("clear")

    def reset(self):
        self.say("reset")

    def stats(self):
        return self.json.loads(self.say("stats"))

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait(10)
            self.process.stdout.close()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def main():
    p = argparse.ArgumentParser(description="Runs an S3 server until it is interrupted.")
    p.add_argument("kind", choices=sorted(KINDS))
    p.add_argument("folder")
    p.add_argument("--port", type=int)
    p.add_argument("--tls", action="store_true")
    a = p.parse_args()
    with KINDS[a.kind](a.folder, a.port, a.tls) as server:
        for name, value in server.env().items():
            print(f"export {name}={value}", flush=True)
        try:
            server.process.wait()
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
