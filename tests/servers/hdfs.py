# SPDX-License-Identifier: Apache-2.0
"""Real HDFS daemons on loopback, as processes of their own, for tests and benches.

    with Cluster(folder) as c:          # a NameNode and two DataNodes; also HACluster, KerberosCluster, KerberosPair
        c.put("/data/a", b"bytes")
        zcache mount c.url + "/data" ...

The daemons come from Maven's hadoop-hdfs (tests/servers/hdfs-pom.xml), kept in the user's cache.  Every
process is started by this one and ended by its pid.  HDFS_VERSION names the release (default 3.5.0;
3.3.6 and 3.4.3 run too).

What the jars want that is not obvious: they lack webapps/, and empty folders on the class path do; dfs.*
must stand in both site files; WebHDFS takes its kind of authentication from hadoop.http.authentication.type.

From a shell:  python3 -m servers.hdfs simple|ha|kerberos|kerberos-ha FOLDER   (in tests/; `fetch` only fetches)
"""

import argparse
import concurrent.futures
import ctypes
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import zipfile

from .s3 import CACHE, free_port, wait_for_port

HERE = os.path.dirname(os.path.abspath(__file__))
VERSION = os.environ.get("HDFS_VERSION") or "3.5.0"
HTTPFS_VERSION = "3.3.6"
POM = os.path.join(HERE, "hdfs-pom.xml")
OPENS = [f"--add-opens={m}=ALL-UNNAMED" for m in (
    "java.base/java.lang", "java.base/java.io", "java.base/java.net", "java.base/java.nio", "java.base/java.util",
    "java.base/java.util.concurrent", "java.base/sun.nio.ch", "java.security.jgss/sun.security.krb5")]
SMALL = ["-Xms32m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss512k"]
NN = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DN = "org.apache.hadoop.hdfs.server.datanode.DataNode"
HTTPFS = "org.apache.hadoop.fs.http.server.HttpFSServerWebServer"
HAADMIN = "org.apache.hadoop.hdfs.tools.DFSHAAdmin"
LOG4J = """log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{HH:mm:ss,SSS} %p %c{2}: %m%n
"""


LIBC = ctypes.CDLL(None)


def die_with_us():
    """In the child: no daemon outlives a test run that was killed (PR_SET_PDEATHSIG)."""
    LIBC.prctl(1, signal.SIGKILL)


def java():
    home = os.environ.get("JAVA_HOME")
    return os.path.join(home, "bin", "java") if home else "java"


def classpath(version=VERSION, httpfs=False):
    """Resolved once by Maven, then remembered."""
    kept = os.path.join(CACHE, f"hdfs-{version}{'-httpfs' if httpfs else ''}.classpath")
    if os.path.exists(kept) and os.path.getmtime(kept) > os.path.getmtime(POM):
        with open(kept, encoding="utf-8") as f:
            text = f.read().strip()
        if all(map(os.path.exists, text.split(":"))):
            return text
    os.makedirs(CACHE, exist_ok=True)
    new = f"{kept}.{os.getpid()}"
    for attempt in (1, 2, 3):
        r = subprocess.run(
            ["mvn", "-B", "-q", f"-Dmaven.repo.local={os.path.join(CACHE, 'm2')}", "-f", POM,
             *(["-P", "httpfs"] if httpfs else []),
             "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:build-classpath",
             f"-Dhadoop.version={version}", f"-Dmdep.outputFile={new}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if r.returncode == 0:
            break
        if attempt == 3:
            raise RuntimeError(f"mvn could not resolve Hadoop {version}:\n{r.stdout[-3000:]}{r.stderr[-1000:]}")
        time.sleep(2)
    os.rename(new, kept)
    with open(kept, encoding="utf-8") as f:
        return f.read().strip()


def site(properties):
    return "<?xml version=\"1.0\"?>\n<configuration>\n" + "".join(
        f"<property><name>{k}</name><value>{v}</value></property>\n" for k, v in properties.items()
    ) + "</configuration>\n"


class Daemon:
    """One process, which can be killed, frozen and started again."""

    def __init__(self, cluster, name, main, *options, cp=None, env=None):
        self.cluster, self.name, self.main, self.options = cluster, name, main, options
        self.cp, self.env = cp, env
        self.log = os.path.join(cluster.folder, name + ".log")
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["nice", "-n", "5", java(), *OPENS, *SMALL, *self.cluster.jvm, "-cp", self.cp or self.cluster.cp,
                 f"-Dhadoop.log.dir={self.cluster.folder}", *(o for o in self.options if o.startswith("-Dhttpfs")),
                 self.main, *(o for o in self.options if not o.startswith("-Dhttpfs"))],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=die_with_us, env={**os.environ, **(self.env or {})})
        return self

    def check(self):
        if self.process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{f.read()[-3000:]}")

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            try:
                self.process.wait(10)
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


class Cluster:
    """A NameNode and DataNodes without security."""

    scheme = "webhdfs"

    def __init__(self, folder, datanodes=2, version=VERSION, host="127.0.0.1", tls=False, extra=None):
        self.folder = os.path.abspath(folder)
        self.version, self.host, self.extra = version, host, extra or {}
        self.n = datanodes
        self.conf = os.path.join(self.folder, "conf")
        self.cp = None
        self.jvm = []
        self.tls = tls
        self.ca = None
        self.rpc, self.http, self.https = free_port(), free_port(), free_port()
        self.daemons = {}
        self.dn_ports = []
        self.httpfs_port = None
        self.user, self.token = "root", None
        os.makedirs(self.conf, exist_ok=True)

    # ---- configuration

    def properties(self):
        p = {
            "fs.defaultFS": f"hdfs://{self.host}:{self.rpc}",
            "dfs.namenode.rpc-address": f"{self.host}:{self.rpc}",
            "dfs.namenode.http-address": f"{self.host}:{self.http}",
            "dfs.namenode.https-address": f"{self.host}:{self.https}",
            "dfs.namenode.name.dir": f"file://{self.folder}/nn",
        }
        if self.tls:
            p["dfs.http.policy"] = "HTTP_AND_HTTPS"
        return p

    def common(self):
        return {
            "dfs.replication": self.n,
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.datanode.hostname": self.host,
            "dfs.namenode.safemode.min.datanodes": self.n,
            "dfs.namenode.safemode.extension": 0,
            "dfs.heartbeat.interval": 1,
            # A dead DataNode is offered for 10 minutes and more, as in a cluster with defaults.
            "dfs.namenode.fs-limits.min-block-size": 4096,
            "dfs.permissions.superusergroup": "root",
            "dfs.client.block.write.replace-datanode-on-failure.policy": "NEVER",
            "dfs.datanode.du.reserved": 0,
            "dfs.namenode.resource.du.reserved": 1048576,
            # A DataNode that is asked over HTTP reads a block through the replica that the NameNode names first.
            # That is its own, except here, where all of them are one host: it must not wait a minute for a
            # neighbour that is frozen.
            "dfs.client.socket-timeout": 2000,
            "ipc.client.connect.max.retries": 3,
            "ipc.client.connect.retry.interval": 200,
            "hadoop.tmp.dir": f"{self.folder}/tmp",
            "hadoop.proxyuser.root.hosts": "*",
            "hadoop.proxyuser.root.groups": "*",
        }

    def write_conf(self):
        for app in ("hdfs", "datanode", "journal", "secondary", "static"):
            folder = os.path.join(self.conf, "webapps", app, "WEB-INF")
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "web.xml"), "w", encoding="ascii") as f:
                f.write('<?xml version="1.0"?><web-app version="2.4" xmlns="http://java.sun.com/xml/ns/j2ee"/>')
        text = site({**self.common(), **self.properties(), **self.extra})
        for name in ("core-site.xml", "hdfs-site.xml"):
            with open(os.path.join(self.conf, name), "w", encoding="ascii") as f:
                f.write(text)
        with open(os.path.join(self.conf, "log4j.properties"), "w", encoding="ascii") as f:
            f.write(LOG4J)
        if self.tls:
            self.write_tls()

    def write_tls(self):
        """A key store for the daemons, and its certificate for clients."""
        store, self.ca = os.path.join(self.folder, "keys.p12"), os.path.join(self.folder, "ca.pem")
        tool = os.path.join(os.path.dirname(shutil.which(java()) or ""), "keytool")
        if not os.path.exists(store):
            subprocess.run([tool, "-genkeypair", "-alias", "zcache", "-keyalg", "EC", "-dname", "CN=localhost", "-ext",
                            "SAN=ip:127.0.0.1,dns:localhost", "-validity", "30", "-storetype", "PKCS12", "-keystore",
                            store, "-storepass", "changeit"], check=True, capture_output=True)
            with open(self.ca, "wb") as f:
                subprocess.run([tool, "-exportcert", "-rfc", "-alias", "zcache", "-keystore", store, "-storepass",
                                "changeit"], check=True, stdout=f, stderr=subprocess.DEVNULL)
        for side in ("server", "client"):
            with open(os.path.join(self.conf, f"ssl-{side}.xml"), "w", encoding="ascii") as f:
                f.write(site({f"ssl.{side}.{kind}.{k}": v for kind in ("keystore", "truststore") for k, v in {
                    "location": store, "password": "changeit", "type": "PKCS12"}.items()} | {
                        f"ssl.{side}.keystore.keypassword": "changeit"}))

    # ---- processes

    def tool(self, *command, env=None):
        """Runs one of Hadoop's programs to its end."""
        r = subprocess.run([java(), *OPENS, *SMALL, *self.jvm, "-cp", self.cp, *command], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})
        if r.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: status {r.returncode}\n{r.stdout[-2000:]}{r.stderr[-3000:]}")
        return r.stdout

    def format(self):
        if not os.path.exists(os.path.join(self.folder, "nn", "current")):
            self.tool(NN, "-format", "-nonInteractive")

    def add(self, name, main, *options, **kw):
        self.daemons[name] = Daemon(self, name, main, *options, **kw)
        return self.daemons[name]

    def add_datanodes(self):
        for i in range(1, self.n + 1):
            data, web, ipc, webs = (free_port() for _ in range(4))
            self.dn_ports.append(web)
            os.makedirs(os.path.join(self.folder, f"dn{i}"), mode=0o700, exist_ok=True)
            self.add(f"dn{i}", DN, f"-Ddfs.datanode.data.dir=file://{self.folder}/dn{i}",
                     f"-Ddfs.datanode.address={self.host}:{data}", f"-Ddfs.datanode.http.address={self.host}:{web}",
                     f"-Ddfs.datanode.https.address={self.host}:{webs}",
                     f"-Ddfs.datanode.ipc.address={self.host}:{ipc}", "-Dipc.client.connect.max.retries=300")

    def start(self):
        self.cp = f"{self.conf}:{classpath(self.version)}"
        self.write_conf()
        try:
            self.before()
            self.format()
            self.add("nn", NN)
            self.add_datanodes()
            for d in self.daemons.values():
                d.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def before(self):
        pass

    def stop(self):
        for d in self.daemons.values():  # all at once, then one by one
            if d.process and d.process.poll() is None:
                d.process.send_signal(signal.SIGCONT)
                d.process.terminate()
        for d in self.daemons.values():
            d.stop()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def jmx(self, port, bean, attribute, service="NameNode"):
        c = http.client.HTTPConnection(self.host, port, timeout=5)
        try:
            c.request("GET", f"/jmx?get=Hadoop:service={service},name={bean}::{attribute}")
            return json.loads(c.getresponse().read())["beans"][0].get(attribute)
        except (OSError, ValueError, LookupError, http.client.HTTPException):
            return None
        finally:
            c.close()

    def wait(self, what, seconds=90):
        end = time.monotonic() + seconds
        while not what():
            for d in self.daemons.values():
                if d.process:
                    d.check()
            if time.monotonic() > end:
                raise RuntimeError("HDFS is not ready in time")
            time.sleep(0.1)

    def wait_ready(self):
        port = self.namenode()[1]
        self.wait(lambda: self.jmx(port, "FSNamesystemState", "NumLiveDataNodes") == self.n and
                  self.jmx(port, "NameNodeInfo", "Safemode") == "")

    def restart(self, name):
        """Starts a daemon again and waits until it serves."""
        self.daemons[name].start()
        if name.startswith("dn"):
            port = self.dn_ports[int(name[2:]) - 1]
            self.wait(lambda: "RUNNING" in str(self.jmx(port, "DataNodeInfo", "BPServiceActorInfo", "DataNode")))

    # ---- for clients

    @property
    def url(self):
        return f"webhdfs://{self.host}:{self.http}"

    def namenode(self):
        """Host and port to speak to."""
        return self.host, self.http

    def ask(self, method, path, op, body=None, headers=None, **args):
        """One request to the NameNode -> (status, headers, bytes). The path is sent as it is, encoded."""
        args = {"op": op, **({"delegation": self.token} if self.token else {"user.name": self.user}), **args}
        c = http.client.HTTPConnection(*self.namenode(), timeout=60)
        try:
            c.request(method, "/webhdfs/v1" + urllib.parse.quote(path, safe="/") + "?" + urllib.parse.urlencode(args),
                      body, headers or {})
            r = c.getresponse()
            return r.status, r.headers, r.read()
        finally:
            c.close()

    def must(self, method, path, op, **args):
        status, _, body = self.ask(method, path, op, **args)
        if status not in (200, 201):
            raise RuntimeError(f"{op} {path}: {status} {body[:500]!r}")
        return json.loads(body) if body else None

    def send(self, method, path, op, data, **args):
        """CREATE or APPEND: the second step goes to the DataNode with our own path, not the redirect's, which is
        normalised."""
        status, headers, body = self.ask(method, path, op, **args)
        if status != 307:
            raise RuntimeError(f"{op} {path}: {status} {body[:500]!r}")
        to = urllib.parse.urlsplit(headers["Location"])
        c = http.client.HTTPConnection(to.hostname, to.port, timeout=60)
        try:
            c.request(method, "/webhdfs/v1" + urllib.parse.quote(path, safe="/") + "?" + to.query, data,
                      {"Content-Type": "application/octet-stream"})
            r = c.getresponse()
            body = r.read()
            if r.status not in (200, 201):
                raise RuntimeError(f"{op} {path}: {r.status} {body[:500]!r}")
        finally:
            c.close()

    def put(self, path, data, **args):
        self.send("PUT", path, "CREATE", data, overwrite="true", **args)

    def append(self, path, data):
        self.send("POST", path, "APPEND", data)

    def put_many(self, files, threads=8):
        """files: {path: bytes}"""
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda kv: self.put(*kv), files.items()))

    def mkdir(self, path):
        self.must("PUT", path, "MKDIRS")

    def stat(self, path):
        return self.must("GET", path, "GETFILESTATUS")["FileStatus"]

    def delete(self, path):
        self.must("DELETE", path, "DELETE", recursive="true")

    def rename(self, path, to):
        self.must("PUT", path, "RENAME", destination=to, renameoptions="OVERWRITE")

    def env(self):
        return {"HADOOP_USER_NAME": self.user}

    def gateway(self):
        """Port of a gateway before this cluster, started when it is first asked for."""
        if self.httpfs_port is None:
            self.httpfs_port = self.start_httpfs()
        return self.httpfs_port

    def start_httpfs(self):
        home, port = os.path.join(self.folder, "httpfs"), free_port()
        jars = classpath(HTTPFS_VERSION, httpfs=True)
        for name in ("conf", "log", "temp"):
            os.makedirs(os.path.join(home, name), exist_ok=True)
        with zipfile.ZipFile(next(j for j in jars.split(":") if "hadoop-hdfs-httpfs" in j)) as z:
            z.extractall(home, [n for n in z.namelist() if n.startswith("webapps/")])
        for name in ("core-site.xml", "hdfs-site.xml", "log4j.properties"):
            shutil.copy(os.path.join(self.conf, name), os.path.join(home, "conf", name))
        shutil.copy(os.path.join(self.conf, "log4j.properties"), os.path.join(home, "conf", "httpfs-log4j.properties"))
        with open(os.path.join(home, "conf", "httpfs-signature.secret"), "w", encoding="ascii") as f:
            f.write("not much of one")
        with open(os.path.join(home, "conf", "httpfs-site.xml"), "w", encoding="ascii") as f:
            f.write(site({"httpfs.http.port": port, "httpfs.http.hostname": self.host}))
        d = self.add("httpfs", HTTPFS, f"-Dhttpfs.home.dir={home}", f"-Dhttpfs.config.dir={home}/conf",
                     f"-Dhttpfs.log.dir={home}/log", f"-Dhttpfs.temp.dir={home}/temp",
                     f"-Dhttpfs.http.hostname={self.host}", f"-Dhttpfs.http.port={port}",
                     cp=f"{home}/conf:{home}:{jars}").start()
        wait_for_port(port, d.process)
        return port


class HACluster(Cluster):
    """Two NameNodes that share an edits folder. `conf` is the folder for --hadoop-conf."""

    def __init__(self, folder, **kw):
        super().__init__(folder, **kw)
        self.ports = {i: (free_port(), free_port()) for i in (1, 2)}  # RPC, HTTP
        self.active = 1

    def properties(self):
        p = {
            "fs.defaultFS": "hdfs://zc",
            "dfs.nameservices": "zc",
            "dfs.ha.namenodes.zc": "nn1,nn2",
            "dfs.client.failover.proxy.provider.zc":
                "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider",
            "dfs.namenode.shared.edits.dir": f"file://{self.folder}/shared",
            "dfs.ha.fencing.methods": "shell(/bin/true)",
            "dfs.ha.tail-edits.period": 1,
            "dfs.ha.automatic-failover.enabled": "false",
        }
        for i, (rpc, web) in self.ports.items():
            p[f"dfs.namenode.rpc-address.zc.nn{i}"] = f"{self.host}:{rpc}"
            p[f"dfs.namenode.http-address.zc.nn{i}"] = f"{self.host}:{web}"
            p[f"dfs.namenode.name.dir.zc.nn{i}"] = f"file://{self.folder}/nn{i}"
        return p

    def start(self):
        self.cp = f"{self.conf}:{classpath(self.version)}"
        self.write_conf()
        try:
            self.before()
            if not os.path.exists(os.path.join(self.folder, "nn2", "current")):
                self.tool(NN, "-Ddfs.ha.namenode.id=nn1", "-format", "-nonInteractive")
                shutil.copytree(os.path.join(self.folder, "nn1"), os.path.join(self.folder, "nn2"))
            for i in (1, 2):
                self.add(f"nn{i}", NN, f"-Ddfs.ha.namenode.id=nn{i}")
            self.add_datanodes()
            for d in self.daemons.values():
                d.start()
            self.wait(lambda: self.state(1) and self.state(2))
            self.activate(1)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def state(self, i):
        return self.jmx(self.ports[i][1], "NameNodeStatus", "State")

    def activate(self, i):
        self.tool(HAADMIN, "-transitionToActive", f"nn{i}")
        self.active = i

    def failover(self):
        """An orderly change-over -> the NameNode that was active; with kill_active() one by force."""
        old, new = self.active, 3 - self.active
        self.tool(HAADMIN, "-failover", f"nn{old}", f"nn{new}")
        self.active = new
        return old

    def kill_active(self):
        """kill -9 of the active NameNode, after which the other takes over."""
        self.daemons[f"nn{self.active}"].kill()
        return self.failover()

    def restart_namenode(self, i):
        """Until it is a standby that could take over: one that waits for block reports refuses to."""
        self.daemons[f"nn{i}"].start()
        self.wait(lambda: self.state(i) == "standby" and
                  self.jmx(self.ports[i][1], "NameNodeInfo", "Safemode") == "")

    def namenode(self):
        return self.host, self.ports[self.active][1]

    @property
    def url(self):
        return "hdfs://zc"


KRB5_CONF = """[libdefaults]
  default_realm = {realm}
  dns_lookup_realm = false
  dns_lookup_kdc = false
  dns_canonicalize_hostname = false
  rdns = false
  udp_preference_limit = 1
  ticket_lifetime = 10h
  renew_lifetime = 7d
  forwardable = true
  clockskew = 5
[realms]
  {realm} = {{
    kdc = 127.0.0.1:{port}
  }}
[domain_realm]
  localhost = {realm}
"""
KDC_CONF = """[kdcdefaults]
  kdc_listen = 127.0.0.1:{port}
  kdc_tcp_listen = 127.0.0.1:{port}
[realms]
  {realm} = {{
    database_name = {folder}/principal
    key_stash_file = {folder}/stash
    acl_file = {folder}/kadm5.acl
    max_life = 24h
    max_renewable_life = 7d
    supported_enctypes = aes256-cts:normal aes128-cts:normal
  }}
[logging]
  kdc = FILE:{folder}/kdc.log
"""


class KerberosCluster(Cluster):
    """With a KDC of its own, and SPNEGO on HTTP. Users: alice, bob and hdfs (the superuser), each with a keytab."""

    realm = "ZC.TEST"

    def __init__(self, folder, **kw):
        super().__init__(folder, host="localhost", **kw)
        self.krb = os.path.join(self.folder, "krb")
        os.makedirs(self.krb, mode=0o700, exist_ok=True)
        self.kdc_port = free_port()
        self.kdc = None
        self.jvm = [f"-Djava.security.krb5.conf={self.krb}/krb5.conf"]
        self.user, self.token_at = "hdfs", 0

    def properties(self):
        me, web = f"hdfs/localhost@{self.realm}", f"HTTP/localhost@{self.realm}"
        keys = f"{self.krb}/hdfs.keytab"
        return {
            **super().properties(),
            "hadoop.security.authentication": "kerberos",
            "hadoop.security.authorization": "true",
            "hadoop.security.token.service.use_ip": "false",
            "dfs.block.access.token.enable": "true",
            "dfs.namenode.kerberos.principal": me,
            "dfs.namenode.keytab.file": keys,
            "dfs.namenode.kerberos.internal.spnego.principal": web,
            "dfs.datanode.kerberos.principal": me,
            "dfs.datanode.keytab.file": keys,
            "dfs.web.authentication.kerberos.principal": web,
            "dfs.web.authentication.kerberos.keytab": keys,
            "hadoop.http.authentication.type": "kerberos",
            "hadoop.http.authentication.simple.anonymous.allowed": "false",
            "hadoop.http.authentication.kerberos.principal": web,
            "hadoop.http.authentication.kerberos.keytab": keys,
            "hadoop.http.authentication.signature.secret.file": f"{self.krb}/http-secret",
            "hadoop.http.filter.initializers": "org.apache.hadoop.security.AuthenticationFilterInitializer",
            "ignore.secure.ports.for.testing": "true",
            "dfs.http.policy": "HTTP_ONLY",
            "dfs.cluster.administrators": "hdfs",
            "dfs.permissions.superusergroup": "hdfs",
        }

    def krb_env(self, cache=None):
        return {"KRB5_CONFIG": f"{self.krb}/krb5.conf", "KRB5_KDC_PROFILE": f"{self.krb}/kdc.conf",
                "KRB5CCNAME": f"FILE:{cache}" if cache else f"FILE:{self.krb}/none",
                "PATH": os.environ["PATH"] + ":/usr/sbin"}

    def krb_run(self, *command, cache=None, text=None):
        env = {**os.environ, **self.krb_env(cache)}
        r = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=env)
        if r.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {r.stdout}{r.stderr}")
        return r.stdout

    def before(self):
        for name, text in (("krb5.conf", KRB5_CONF), ("kdc.conf", KDC_CONF), ("kadm5.acl", "")):
            with open(os.path.join(self.krb, name), "w", encoding="ascii") as f:
                f.write(text.format(realm=self.realm, port=self.kdc_port, folder=self.krb))
        with open(os.path.join(self.krb, "http-secret"), "w", encoding="ascii") as f:
            f.write(os.urandom(32).hex())
        if not os.path.exists(os.path.join(self.krb, "principal")):
            self.krb_run("kdb5_util", "create", "-r", self.realm, "-s", "-P", "masterpw")
            lines = [f"addprinc -randkey -maxrenewlife 7d {p}"
                     for p in ("hdfs/localhost", "HTTP/localhost", "hdfs", "alice", "bob")]
            lines.append(f"modprinc -maxrenewlife 7d krbtgt/{self.realm}")
            lines.append(f"ktadd -k {self.krb}/hdfs.keytab hdfs/localhost HTTP/localhost")
            lines += [f"ktadd -k {self.keytab(p)} {p}" for p in ("hdfs", "alice", "bob")]
            self.krb_run("kadmin.local", "-r", self.realm, text="\n".join(lines) + "\n")
        self.start_kdc()
        self.kinit("hdfs", f"{self.krb}/admin")

    def start_kdc(self):
        with open(os.path.join(self.krb, "kdc.out"), "ab") as log:
            self.kdc = subprocess.Popen(["krb5kdc", "-n", "-r", self.realm], stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=log, preexec_fn=die_with_us, env={**os.environ, **self.krb_env()})
        wait_for_port(self.kdc_port, self.kdc)

    def stop_kdc(self):
        if self.kdc and self.kdc.poll() is None:
            self.kdc.terminate()
            self.kdc.wait(10)
        self.kdc = None

    def stop(self):
        super().stop()
        self.stop_kdc()

    def keytab(self, who):
        return f"{self.krb}/{who}.user.keytab"

    def kinit(self, who, cache, *options):
        self.krb_run("kinit", *options, "-kt", self.keytab(who), f"{who}@{self.realm}", cache=cache)

    def tool(self, *command, env=None):
        return super().tool(*command, env=env or self.krb_env(f"{self.krb}/admin"))

    def jmx(self, port, bean, attribute, service="NameNode"):
        try:
            out = self.krb_run("curl", "-sS", "-m", "5", "--negotiate", "-u", ":",
                               f"http://localhost:{port}/jmx?get=Hadoop:service={service},name={bean}::{attribute}",
                               cache=f"{self.krb}/admin")
            return json.loads(out)["beans"][0].get(attribute)
        except (RuntimeError, ValueError, LookupError):
            return None

    def wait_ready(self):
        def token():
            try:
                self.fresh_token()
                return True
            except (RuntimeError, ValueError, LookupError):  # in safe mode there is none
                return False

        port = self.namenode()[1]
        self.wait(lambda: self.jmx(port, "FSNamesystemState", "NumLiveDataNodes") == self.n)
        self.wait(token)
        self.wait(lambda: self.ask("PUT", "/.ready", "MKDIRS")[0] == 200)

    def ask(self, *args, **kw):
        # Some tests have tokens that live for seconds.
        if self.token and time.monotonic() - self.token_at > 2:
            self.fresh_token()
        return super().ask(*args, **kw)

    def fresh_token(self):
        self.token, self.token_at = self.new_token("hdfs"), time.monotonic()

    def new_token(self, who):
        cache = f"{self.krb}/{who}.cc"
        self.kinit(who, cache)
        out = self.krb_run("curl", "-sS", "-m", "20", "--negotiate", "-u", ":",
                           f"http://localhost:{self.namenode()[1]}/webhdfs/v1/?op=GETDELEGATIONTOKEN", cache=cache)
        return json.loads(out)["Token"]["urlString"]

    def env(self):
        return self.krb_env()


class KerberosPair(KerberosCluster, HACluster):
    """Two NameNodes, and Kerberos."""


def main():
    kinds = {"simple": Cluster, "ha": HACluster, "kerberos": KerberosCluster, "kerberos-ha": KerberosPair}
    p = argparse.ArgumentParser(description="Runs HDFS until it is interrupted.")
    p.add_argument("kind", choices=[*kinds, "fetch"])
    p.add_argument("folder", nargs="?")
    a = p.parse_args()
    if a.kind == "fetch":
        for version in {VERSION, "3.5.0", HTTPFS_VERSION}:
            classpath(version)
        classpath(HTTPFS_VERSION, httpfs=True)
        return 0
    if not a.folder:
        p.error("which folder?")
    with kinds[a.kind](a.folder) as c:
        print(f"source: {c.url}/", flush=True)
        print(f"configuration: {c.conf}", flush=True)
        for name, value in c.env().items():
            print(f"export {name}={value}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
