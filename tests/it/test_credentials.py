# SPDX-License-Identifier: Apache-2.0
"""Where S3's keys come from: every source of AWS's chain, against servers that speak the real
protocols and hand out accounts of a real store, which deletes them when their time is over."""

import concurrent.futures
import json
import os
import shlex
import stat
import subprocess
import sys
import threading
import time

import pytest

from conftest import make_bytes
from servers import aws, s3
from zcache import alive, wait_for

N = 300
SIZE = 40_000


@pytest.fixture(scope="module")
def store(base):
    """A store with accounts, and a bucket of small files."""
    with aws.Accounts(os.path.join(base, "accounts")) as server:
        client = server.client()
        client.create_bucket(Bucket="epoch")

        def put(i):
            client.put_object(Bucket="epoch", Key=f"d{i % 10}/f{i:03d}", Body=make_bytes(SIZE, i))
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(put, range(N)))
        yield server


@pytest.fixture
def issuer(store):
    """Lives of an hour, unless a test says otherwise."""
    i = aws.Issuer(store, 3600)
    yield i
    i.stop()


class Setting:
    """One way to be given keys: servers, environment, files."""

    def __init__(self, zc, store, issuer):
        self.zc, self.store, self.issuer = zc, store, issuer
        self.home, self.servers = zc.work, []
        self.env = {"AWS_ENDPOINT_URL_S3": store.url, "AWS_REGION": s3.REGION}
        os.makedirs(os.path.join(self.home, ".aws"), exist_ok=True)

    def serve(self, server):
        self.servers.append(server.start())
        return server

    def stop(self):
        for server in self.servers:
            server.stop()

    def file(self, name, text, mode=0o600):
        path = os.path.join(self.home, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def config(self, text):
        return self.file(".aws/config", text)

    # ---- the ways

    def imds(self):
        server = self.serve(aws.Imds(self.issuer))
        self.env |= {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url + "/",
                     "AWS_EC2_METADATA_DISABLED": "false"}
        return server

    def container(self):
        server = self.serve(aws.Container(self.issuer, token="Basic abc"))
        self.env |= {"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url + server.path,
                     "AWS_CONTAINER_AUTHORIZATION_TOKEN": "Basic abc"}
        return server

    def container_token_file(self):
        """EKS: the token lies in a file, and goes before the variable."""
        path = self.file("pod-token", "pod-token-1\n")
        server = self.serve(aws.Container(self.issuer, token_file=path))
        self.env |= {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://localhost:{server.port}{server.path}",
                     "AWS_CONTAINER_AUTHORIZATION_TOKEN": "not this one",
                     "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": path}
        return server

    def web_identity(self):
        path = self.file("web-token", "eyJ.web.token-1\n")
        server = self.serve(aws.Sts(self.issuer, web_token_file=path))
        self.env |= {"AWS_WEB_IDENTITY_TOKEN_FILE": path, "AWS_ROLE_ARN": aws.ROLE,
                     "AWS_ENDPOINT_URL_STS": server.url, "AWS_ROLE_SESSION_NAME": "a-job"}
        return server

    def web_identity_profile(self):
        path = self.file("web-token", "eyJ.web.token-2")
        server = self.serve(aws.Sts(self.issuer, web_token_file=path))
        self.config(f"[default]\nrole_arn = {aws.ROLE}\nweb_identity_token_file = {path}\n"
                    "role_session_name = from-profile\nduration_seconds = 900\nservices = here\n"
                    f"[services here]\nsts =\n  endpoint_url = {server.url}\n")
        return server

    def sts(self, **kw):
        server = self.serve(aws.Sts(self.issuer, {"AKIABASE": ("base+secret/=", None)}, **kw))
        self.env["AWS_ENDPOINT_URL_STS"] = server.url
        return server

    def assume_role(self):
        server = self.sts(external_id="ext+id/1")
        self.config(f"[default]\nrole_arn = {aws.ROLE}\nsource_profile = base\n"
                    "external_id = ext+id/1\nrole_session_name = s@1\nduration_seconds = 1200\n")
        self.file(".aws/credentials",
                  "[base]\naws_access_key_id = AKIABASE\naws_secret_access_key = base+secret/=\n")
        return server

    def assume_role_self(self):
        """A profile may be its own source when it has keys."""
        server = self.sts()
        self.config(f"[default]\nrole_arn = {aws.ROLE}\nsource_profile = default\n"
                    "aws_access_key_id = AKIABASE\naws_secret_access_key = base+secret/=\n")
        return server

    def assume_role_chain(self):
        """a -> b -> c, whose keys it has."""
        server = self.sts()
        self.config(f"[profile a]\nrole_arn = {aws.ROLE}-a\nsource_profile = b\n"
                    f"[profile b]\nrole_arn = {aws.ROLE}-b\nsource_profile = c\n"
                    "[profile c]\naws_access_key_id = AKIABASE\naws_secret_access_key = base+secret/=\n")
        self.env["AWS_PROFILE"] = "a"
        return server

    def assume_role_environment(self):
        server = self.sts()
        self.config(f"[profile r]\nrole_arn = {aws.ROLE}\ncredential_source = Environment\n")
        self.env |= {"AWS_ACCESS_KEY_ID": "AKIABASE", "AWS_SECRET_ACCESS_KEY": "base+secret/="}
        self.options = ["--profile", "r"]  # by AWS_PROFILE the environment would go before it
        return server

    def assume_role_instance(self):
        imds = self.serve(aws.Imds(aws.Static("AKIABASE", "base+secret/=", token="base-token")))
        server = self.serve(aws.Sts(self.issuer, {"AKIABASE": ("base+secret/=", "base-token")}))
        self.config(f"[default]\nrole_arn = {aws.ROLE}\ncredential_source = Ec2InstanceMetadata\n")
        self.env |= {"AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url, "AWS_ENDPOINT_URL_STS": server.url,
                     "AWS_EC2_METADATA_DISABLED": "false"}
        return server

    def assume_role_container(self):
        container = self.serve(aws.Container(aws.Static("AKIABASE", "base+secret/=", token="t/+=")))
        server = self.serve(aws.Sts(self.issuer, {"AKIABASE": ("base+secret/=", "t/+=")},
                                    region="eu-west-1"))
        self.config(f"[default]\nrole_arn = {aws.ROLE}\ncredential_source = EcsContainer\n")
        self.env |= {"AWS_CONTAINER_CREDENTIALS_FULL_URI": container.url + container.path,
                     "AWS_ENDPOINT_URL_STS": server.url}
        # STS is asked in the source's region; this store takes none but its own for itself.
        self.env["AWS_REGION"] = "eu-west-1"
        return server

    def process(self):
        """A program with blanks and quotes in its arguments, and no shell between."""
        server = self.serve(aws.Container(self.issuer))
        program = self.file("keys of mine", f"""#!/usr/bin/python3
import json, sys, urllib.request
assert sys.argv[1:] == ["two words", "$HOME", "a'b", "x;y", "`z`"], sys.argv
d = json.load(urllib.request.urlopen("{server.url}{server.path}"))
print(json.dumps({{"Version": 1, "AccessKeyId": d["AccessKeyId"], "SecretAccessKey": d["SecretAccessKey"],
                  "SessionToken": d["Token"], "Expiration": d["Expiration"].replace("Z", "+00:00")}}))
print("noise on stderr", file=sys.stderr)
""", 0o700)
        self.config(f"""[default]\ncredential_process = "{program}" 'two words' $HOME "a'b" x;y `z`\n""")
        return server

    def sso(self):
        server = self.serve(aws.Sso(self.issuer))
        self.config("[default]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Reader\n"
                    "[sso-session corp]\nsso_region = us-east-1\n"
                    "sso_start_url = https://d-1234.awsapps.com/start\n")
        self.login = server.login(self.home, "corp", True)
        self.env |= {"AWS_ENDPOINT_URL_SSO": server.url, "AWS_ENDPOINT_URL_SSO_OIDC": server.url}
        return server

    def sso_legacy(self):
        server = self.serve(aws.Sso(self.issuer))
        start = "https://d-1234.awsapps.com/start"
        self.config(f"[default]\nsso_start_url = {start}\nsso_region = us-east-1\n"
                    "sso_account_id = 123456789012\nsso_role_name = Reader\n")
        self.login = server.login(self.home, start, False, refresh=False)
        self.env |= {"AWS_ENDPOINT_URL_SSO": server.url}
        return server

    def sso_expired_login(self):
        """The login has ended, but can be renewed."""
        server = self.sso()
        self.login = server.login(self.home, "corp", True, life=-10)
        return server

    options = []

    def mount(self, *options, **kw):
        return self.zc.mount("s3://epoch", *self.options, *options, env=self.env, **kw)


WAYS = ["imds", "container", "container_token_file", "web_identity", "web_identity_profile", "assume_role",
        "assume_role_self", "assume_role_chain", "assume_role_environment", "assume_role_instance",
        "assume_role_container",
        "process", "sso", "sso_legacy", "sso_expired_login"]


@pytest.fixture
def setting(zc, store, issuer):
    s = Setting(zc, store, issuer)
    yield s
    for m in zc.mounts:
        if not m.over:
            m.umount()
    s.stop()


@pytest.fixture
def no_secrets(zc):
    """Nothing that was handed out stands in a log or a command line."""
    yield
    logs = ""
    for top, _, names in os.walk(zc.logs):
        for name in names:
            with open(os.path.join(top, name), encoding="utf-8", errors="replace") as f:
                logs += f.read()
    for secret in SECRETS:
        assert secret not in logs, "a secret stands in the log"
    SECRETS.clear()


SECRETS = []


def epoch(m, names, workers=4):
    """Reads all; returns what failed."""
    failed = []

    def read(i):
        path = f"d{i % 10}/f{i:03d}"
        try:
            assert m.read(path) == make_bytes(SIZE, i), f"{path}: wrong bytes"
        except OSError as e:
            failed.append(f"{path}: {e}")
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        list(pool.map(read, names))
    return failed


@pytest.mark.parametrize("way", WAYS)
def test_each_source(setting, issuer, way, no_secrets):
    """Keys from it read the store, and are asked for once."""
    server = getattr(setting, way)()
    m = setting.mount("--log-level", "debug")
    assert epoch(m, range(20)) == []
    assert sorted(os.listdir(m.path)) == [f"d{i}" for i in range(10)]
    SECRETS.extend([*issuer.secrets, "base+secret/=", "pod-token-1", "eyJ.web"])
    with open(f"/proc/{m.pid}/cmdline", "rb") as f:
        line = f.read().decode(errors="replace")
    assert not any(s in line for s in SECRETS)
    expected = 2 if way == "assume_role_chain" else 1
    assert len(issuer.issued) == expected, f"asked {len(issuer.issued)} times for keys that serve an hour"
    if way == "assume_role":
        call = server.calls[-1]
        assert call["ExternalId"] == "ext+id/1" and call["RoleSessionName"] == "s@1"
        assert call["DurationSeconds"] == "1200"
    if way == "assume_role_chain":
        assert [c["RoleArn"] for c in server.calls] == [aws.ROLE + "-b", aws.ROLE + "-a"]
    if way == "web_identity":
        assert server.calls[-1]["RoleSessionName"] == "a-job"
    if way == "web_identity_profile":
        assert server.calls[-1]["RoleSessionName"] == "from-profile"
        assert server.calls[-1]["DurationSeconds"] == "900"
    if way == "sso_expired_login":
        assert server.requests["refreshed"] == 1
        with open(setting.login, encoding="ascii") as f:
            doc = json.load(f)
        assert doc["accessToken"] in server.tokens and doc["refreshToken"] in server.refresh
        assert doc["clientSecret"] == server.client[1], "what else the file held is lost"
        assert stat.S_IMODE(os.stat(setting.login).st_mode) == 0o600
    assert m.umount().returncode == 0


LIFE = 4
RENEWING = ["imds", "container", "web_identity", "assume_role", "process", "sso"]


@pytest.mark.parametrize("way", RENEWING)
def test_keys_that_expire_while_reading(setting, issuer, way):
    """Lives of four seconds, for 16 seconds of reads: none fails, and the source is asked no more
    often than it must be."""
    issuer.life = LIFE
    getattr(setting, way)()
    m = setting.mount("--metadata-ttl", "minimal")
    end, rounds, failed = time.monotonic() + 4 * LIFE, 0, []
    while time.monotonic() < end:
        failed += epoch(m, [(rounds * 7 + i) % N for i in range(8)])
        setting.zc.ok("free", m.path)
        rounds += 1
        time.sleep(0.05)
    assert failed == [], f"{len(failed)} reads failed, first: {failed[:3]}"
    assert rounds > 10
    assert 4 <= len(issuer.issued) <= 16, f"{len(issuer.issued)} renewals in {4 * LIFE} s"
    assert m.status()["backend"]["errors"] == 0


@pytest.mark.parametrize("way", ["imds", "container", "web_identity"])
def test_idle_mount_after_its_keys_have_ended(setting, issuer, way):
    """Nobody reads for longer than the keys live: the next read gets new ones first, and does not go
    to the store with the old ones."""
    issuer.life = 2
    getattr(setting, way)()
    m = setting.mount("--metadata-ttl", "indefinite")
    assert epoch(m, range(5)) == []
    time.sleep(4)
    before = len(issuer.issued)
    assert epoch(m, range(5, 25), workers=20) == []
    assert len(issuer.issued) == before + 1, "twenty reads at once asked more than once"


def test_source_down_when_keys_are_to_be_renewed(setting, issuer):
    """The old keys serve until their end, reads then wait for the source and go on."""
    issuer.life = 8
    server = setting.imds()
    m = setting.mount("--read-timeout", "30s")
    assert epoch(m, range(5)) == []
    server.stop()
    last = time.monotonic() + issuer.life - 2.5
    i = 5
    while time.monotonic() < last:
        assert epoch(m, [i, i + 1]) == [], "keys that were good did not serve"
        i += 2
        time.sleep(0.2)
    time.sleep(4)  # now they have ended
    back = threading.Timer(4, server.start)
    back.start()
    assert epoch(m, range(i, i + 8), workers=8) == []
    back.join()
    log = setting.zc.log_tail()
    assert "could not be renewed" in log and "renewed again" in log, log


def test_source_that_stays_down(setting, issuer):
    """Reads fail after their time, and say why."""
    issuer.life = 3
    server = setting.container()
    m = setting.mount("--read-timeout", "4s")
    assert epoch(m, range(3)) == []
    server.stop()
    time.sleep(4.5)
    failed = epoch(m, [10])
    assert len(failed) == 1
    assert "could not be renewed" in setting.zc.log_tail()
    server.start()
    assert epoch(m, [10]) == [], setting.zc.log_tail()


def test_keys_that_the_store_refuses_before_their_end(setting, issuer, store):
    """An account is deleted early: one renewal, and nobody notices."""
    setting.container()
    m = setting.mount("--metadata-ttl", "minimal")
    assert epoch(m, range(5)) == []
    for turn in range(3):
        time.sleep(11)  # a renewal is not forced again sooner than after ten seconds
        store.delete(issuer.issued[-1])
        assert epoch(m, range(10 + 10 * turn, 20 + 10 * turn), workers=8) == []
        assert len(issuer.issued) == turn + 2


def test_files_are_read_again(setting, store, issuer):
    """A tool rewrites the credentials file; the account of before is gone."""
    key, secret = store.make()

    def write(k, s):
        setting.file(".aws/credentials", f"[default]\naws_access_key_id = {k}\naws_secret_access_key = {s}\n")
    write(key, secret)
    m = setting.mount("--metadata-ttl", "minimal")
    assert epoch(m, range(5)) == []
    write(*store.make())
    store.delete(key)
    assert epoch(m, range(5, 25), workers=8) == []


def test_token_files_are_read_again(setting, issuer):
    """Kubernetes renews the token in the file."""
    issuer.life = 3
    setting.web_identity()
    m = setting.mount()
    assert epoch(m, range(3)) == []
    setting.file("web-token", "eyJ.web.token-next\n")
    time.sleep(4)
    assert epoch(m, range(3, 6)) == []


def test_sso_refresh_token_is_renewed_on_and_on(setting, issuer):
    """Logins that end each few seconds, too."""
    issuer.life = 2
    server = setting.sso_expired_login()
    server.token_life = 2
    m = setting.mount("--metadata-ttl", "minimal")
    for i in range(4):
        assert epoch(m, range(5 * i, 5 * i + 5)) == []
        time.sleep(2.2)
    assert server.requests["refreshed"] >= 3


def test_sso_login_that_several_renew(setting):
    """A refresh token is good for one use, and three sources share it: who comes too late takes the login that
    the first has written."""
    server = setting.sso_expired_login()
    server.renewal_takes = 0.7
    sources = [f"/{n}=s3://epoch/d{n}" for n in range(3)]
    m = setting.zc.mount(sources, env=setting.env)
    assert (server.requests["refreshed"], server.requests["spent"]) == (1, 2)
    for i in range(3):
        assert m.read(f"{i}/f{i:03d}") == make_bytes(SIZE, i)


def test_source_that_hangs_when_keys_have_ended(setting, issuer):
    """Reads fail after their time, not after the source's, which is longer."""
    issuer.life = 2
    server = setting.imds()
    setting.env["AWS_METADATA_SERVICE_TIMEOUT"] = "50"
    m = setting.mount("--read-timeout", "3s")
    assert epoch(m, range(2)) == []
    server.fault = "hang"
    time.sleep(3)
    start = time.monotonic()
    assert len(epoch(m, [50, 51])) == 2
    assert time.monotonic() - start < 25, "it waited for the source"
    health = m.status()["sources"][0]["health"]
    assert not health["ok"] and "who gives them did not answer" in health["error"], health


def test_unmount_while_the_source_hangs(setting, issuer):
    issuer.life = 2
    server = setting.imds()
    setting.env["AWS_METADATA_SERVICE_TIMEOUT"] = "50"
    m = setting.mount()
    assert epoch(m, range(2)) == []
    server.fault = "hang"
    time.sleep(3)
    readers = concurrent.futures.ThreadPoolExecutor(4)
    waiting = [readers.submit(epoch, m, [50 + i], 1) for i in range(4)]
    time.sleep(1)
    start = time.monotonic()
    os.kill(m.pid, 15)
    wait_for(lambda: not alive(m.pid), 40, message="the daemon waits for a source that hangs")
    assert time.monotonic() - start < 20, "it waited for the source"
    m.over = True
    readers.shutdown()
    assert all(w.result() for w in waiting)


# ------------------------------------------------------------ order


def test_order_of_the_chain(setting, issuer, store):
    """All at once: each goes before the next, which is seen when it is taken away."""
    good = store.make()
    sts = setting.sts()
    sts.web_token_file = setting.file("web-token", "eyJ.w\n")
    sso = setting.serve(aws.Sso(issuer))
    sso.login(setting.home, "corp", True)
    container = setting.serve(aws.Container(issuer))
    imds = setting.serve(aws.Imds(issuer))
    setting.env |= {
        "AWS_ACCESS_KEY_ID": good[0], "AWS_SECRET_ACCESS_KEY": good[1],
        "AWS_WEB_IDENTITY_TOKEN_FILE": sts.web_token_file, "AWS_ROLE_ARN": aws.ROLE,
        "AWS_ENDPOINT_URL_SSO": sso.url, "AWS_EC2_METADATA_DISABLED": "false",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": container.url + container.path,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url}
    program = setting.file("process", "#!/bin/sh\ntouch $HOME/process-ran\n"
                           f"echo '{{\"Version\": 1, \"AccessKeyId\": \"{good[0]}\", "
                           f"\"SecretAccessKey\": \"{good[1]}\"}}'\n", 0o700)
    role = f"role_arn = {aws.ROLE}\nsource_profile = base\n"
    login = "sso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Reader\n"
    process = f"credential_process = {program}\n"
    keys = f"aws_access_key_id = {good[0]}\naws_secret_access_key = {good[1]}\n"
    tail = ("[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = base+secret/=\n"
            "[sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://d/start\n")

    def config(*parts):
        setting.config("[default]\n" + "".join(parts) + tail)

    def counts():
        ran = os.path.exists(os.path.join(setting.home, "process-ran"))
        if ran:
            os.remove(os.path.join(setting.home, "process-ran"))
        return (sts.requests["AssumeRole"], sts.requests["AssumeRoleWithWebIdentity"], sso.requests["keys"],
                ran, container.requests["keys"], imds.requests["keys"])

    def used():
        before = counts()
        m = setting.mount()
        assert epoch(m, [1]) == []
        assert m.umount().returncode == 0
        after = counts()
        names = ["role", "web", "sso", "process", "container", "imds"]
        return [n for n, a, b in zip(names, before, after) if a != b]

    credentials = setting.file(".aws/credentials", f"[default]\n{keys}")
    config(role, login, process, keys)
    assert used() == []  # the environment's keys
    setting.options = ["--profile", "default"]
    assert used() == ["role"]  # a profile by option goes before them
    setting.options = []
    del setting.env["AWS_ACCESS_KEY_ID"]
    assert used() == ["role"]
    config(login, process, keys)
    assert used() == ["web"]
    del setting.env["AWS_WEB_IDENTITY_TOKEN_FILE"]
    assert used() == ["sso"]
    config(process, keys)
    assert used() == []  # keys in the credentials file
    os.remove(credentials)
    assert used() == ["process"]
    config(keys)
    assert used() == []  # keys in the config file
    config("region = us-east-1\n")
    assert used() == ["container"]
    del setting.env["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    assert used() == ["imds"]


# ------------------------------------------------------------ what is wrong


@pytest.fixture
def refused(setting):
    def run(*words, options=(), **kw):
        point, cache = setting.zc.place()
        return setting.zc.fails("mount", "--cache-dir", cache, *setting.options, *options, "s3://epoch",
                                point, env=setting.env, words=words, status=1, **kw)
    return run


def test_nothing_anywhere(setting, refused):
    """The error lists every source that was tried."""
    r = refused("environment: AWS_ACCESS_KEY_ID is not set", "role of the profile", "web identity",
                "SSO login", "credentials file", "credential_process", "config file", "container",
                "instance metadata: AWS_EC2_METADATA_DISABLED is set", "--profile", "--no-sign-request")
    assert len(r.stderr) < 1100


def test_not_in_ec2(setting, refused):
    setting.env |= {"AWS_EC2_METADATA_DISABLED": "false",
                    "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{s3.free_port()}"}
    refused("instance metadata: no answer from http://127")


@pytest.mark.parametrize("fault,words", [
    ((200, {}, "<html>"), "session token that is none|not JSON|JSON"),
    ((404, {}, ""), "IMDSv2"), ((405, {}, ""), "IMDSv2"), ((403, {}, ""), "switched off"),
    ((500, {}, ""), "HTTP 500"), ("no-role", "has no role"), ("hang", "no answer|hop limit"),
    ("failed", "Code is AssumeRoleUnauthorizedAccess"), ("half", "SecretAccessKey"),
    ("blank", "SecretAccessKey"), ("no-end", "Expiration")])
def test_wrong_answers_of_instance_metadata(setting, refused, fault, words):
    server = setting.imds()
    docs = {
        "failed": {"Code": "AssumeRoleUnauthorizedAccess"},
        "half": {"Code": "Success", "AccessKeyId": "A", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"},
        "blank": {"Code": "Success", "AccessKeyId": "A", "SecretAccessKey": "a\r\nX-Evil: 1", "Token": "t",
                  "Expiration": "2099-01-01T00:00:00Z"},
        "no-end": {"Code": "Success", "AccessKeyId": "A", "SecretAccessKey": "s", "Token": "t"}}
    if fault == "no-role":
        server.role = None
    elif isinstance(fault, str) and fault in docs:
        inner = server.answer

        def answer(method, path, *rest):
            if path.endswith("/instance-role"):
                return 200, {}, json.dumps(docs[fault])
            return inner(method, path, *rest)
        server.answer = answer
    else:
        server.fault = fault
    refused(words)


@pytest.mark.parametrize("url", ["http://203.0.113.7/c", "http://example.com/c", "ftp://127.0.0.1/c",
                                 "http://127.0.0.1@203.0.113.7/c", "http://127.0.0.1.nip.example/c",
                                 "http://169.254.170.2.example/c", "http://[::2]/c", "file:///etc/passwd"])
def test_container_address_that_leaves_the_machine(setting, refused, url):
    setting.env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = url
    refused("AWS_CONTAINER_CREDENTIALS_FULL_URI", "without TLS the host")


def test_wrong_answers_of_a_container(setting, refused):
    server = setting.container()
    setting.env["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "Basic wrong"
    refused("HTTP 401", "the token is not right")
    setting.env["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "a\r\nX-Evil: 1"
    refused("more than one line")
    setting.env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = "/nonexistent/token"
    refused("/nonexistent/token", "No such file")
    del setting.env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
    setting.env["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "Basic abc"
    for fault, words in [((200, {}, "not json"), "JSON"), ((200, {}, "[]"), "JSON"),
                         ((200, {}, "{}"), "AccessKeyId"), ((404, {}, "x"), "HTTP 404"),
                         ((503, {}, ""), "HTTP 503"), ((302, {"Location": "http://127.0.0.1:1/"}, ""), "302")]:
        server.fault = fault
        refused("container", words)
    server.stop()
    refused("does not answer")


def test_wrong_answers_of_sts(setting, refused):
    server = setting.web_identity()
    for fault, words in [((200, {}, "hello"), "not STS's XML"), ((200, {}, "<a><b/></a>"), "AccessKeyId"),
                         ((200, {}, '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'), "not STS's XML"),
                         ((500, {}, ""), "HTTP 500")]:
        server.fault = fault
        refused("AssumeRoleWithWebIdentity", words)
    server.fault = None
    setting.file("web-token", "another\n")
    server.web_token_file = setting.file("expected", "eyJ\n")
    refused("InvalidIdentityToken", "No OpenIDConnect provider")
    setting.file("web-token", "")
    refused("web-token", "is empty")
    os.remove(os.path.join(setting.home, "web-token"))
    refused("web-token", "cannot be read")
    del setting.env["AWS_ROLE_ARN"]
    refused("AWS_ROLE_ARN")


def test_wrong_secret_for_sts(setting, refused):
    setting.assume_role()
    setting.file(".aws/credentials",
                 "[base]\naws_access_key_id = AKIABASE\naws_secret_access_key = wrong\n")
    refused("AssumeRole", "SignatureDoesNotMatch", "profile 'default'")


def test_wrong_external_id(setting, refused):
    setting.assume_role().external_id = "other"
    refused("AssumeRole", "AccessDenied")


@pytest.mark.parametrize("text,words", [
    ("[default]\nrole_arn = r\nsource_profile = a\n[profile a]\nrole_arn = r\nsource_profile = b\n"
     "[profile b]\nrole_arn = r\nsource_profile = a\n", ["circle", "a <- b <- a <- default"]),
    ("[default]\nrole_arn = r\nsource_profile = default\n", ["circle"]),
    ("[default]\nrole_arn = r\nsource_profile = none\n", ["no profile 'none'"]),
    ("[default]\nrole_arn = r\nsource_profile = a\n[profile a]\nregion = x\n", ["'a' has no keys"]),
    ("[default]\nrole_arn = r\nsource_profile = a\ncredential_source = Environment\n", ["both"]),
    ("[default]\nrole_arn = r\n", ["neither"]),
    ("[default]\nrole_arn = r\ncredential_source = Env\n", ["Env'", "EcsContainer"]),
    ("[default]\nrole_arn = r\ncredential_source = Environment\n", ["AWS_ACCESS_KEY_ID is not set"]),
    ("[default]\nrole_arn = r\nsource_profile = a\nmfa_serial = arn:x\n", ["mfa_serial", "credential_process"]),
    ("[default]\nrole_arn = r\nsource_profile = a\nduration_seconds = 12\n"
     "[profile a]\naws_access_key_id = A\naws_secret_access_key = s\n", ["duration_seconds", "900"]),
    ("[default]\nrole_arn = r\nsource_profile = a\nsts_regional_endpoints = global\n"
     "[profile a]\naws_access_key_id = A\naws_secret_access_key = s\n", ["regional or legacy"]),
    ("[default]\nsso_session = gone\nsso_account_id = 1\nsso_role_name = r\n", ["gone", "sso_region"]),
    ("[default]\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\n", ["sso_role_name"]),
    ("[default]\nsso_start_url = u\nsso_region = r\nsso_account_id = 1\nsso_role_name = r\n",
     ["nobody has logged in", "aws sso login --profile default"]),
    ("[default]\ncredential_process = \"open quote\n", ["cut into words"]),
    ("[default]\ncredential_process = /nonexistent/program\n", ["/nonexistent/program", "cannot be started"]),
    ("[default]\ncredential_process = false\n", ["status 1"]),
    ("[default]\ncredential_process = echo hello\n", ["echo", "JSON"]),
    ("[default]\ncredential_process = echo {\\\"Version\\\":2}\n", ["Version"]),
    ("[default]\ncredential_process = sh -c 'echo one >&2; echo last words >&2; exit 3'\n",
     ["status 3: last words"]),
    ("[default]\ncredential_process = sh -c 'kill -9 $$'\n", ["signal 9"]),
    ("[default]\ncredential_process = yes\n", ["prints too much"]),
])
def test_wrong_profiles(setting, refused, text, words):
    setting.config(text)
    setting.env["AWS_ENDPOINT_URL_STS"] = f"http://127.0.0.1:{s3.free_port()}"
    refused(*words)


def test_process_that_prints_expired_keys(setting, refused):
    program = setting.file("p", "#!/bin/sh\necho '{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":"
                           "\"s\",\"SessionToken\":\"t\",\"Expiration\":\"2020-01-01T00:00:00Z\"}'\n", 0o700)
    setting.config(f"[default]\ncredential_process = {program}\n")
    refused("have expired")


def test_process_leaves_nothing_behind(setting, issuer):
    """What the process started ends with it, and holds nothing open."""
    server = setting.process()
    program = setting.file("wrapper", f"""#!/bin/sh
sleep 987 &
exec {shlex.quote(os.path.join(setting.home, "keys of mine"))} "$@"
""", 0o700)
    setting.config(f"""[default]\ncredential_process = "{program}" 'two words' $HOME "a'b" x;y `z`\n""")
    m = setting.mount()
    assert epoch(m, range(3)) == [] and server.requests["keys"] == 1
    ps = subprocess.run(["pgrep", "-f", "^sleep 987"], capture_output=True, text=True, check=False).stdout
    assert ps == "", "a grandchild lives on"


def test_sso_login_that_cannot_be_renewed(setting, refused):
    server = setting.sso_expired_login()
    server.refresh.clear()
    refused("login has expired", "invalid_grant", "aws sso login")
    setting.sso_legacy()
    setting.login = setting.servers[-1].login(setting.home, "https://d-1234.awsapps.com/start", False,
                                              refresh=False, life=-5)
    refused("login has expired", "aws sso login")


def test_sso_refusals(setting, refused):
    server = setting.sso()
    server.tokens.clear()
    refused("does not take the login", "aws sso login")
    server = setting.sso()
    server.role = "Other"
    refused("HTTP 403", "ForbiddenException", "Reader")
    with open(setting.login, "w", encoding="ascii") as f:
        f.write("{}")
    refused("is of no use", "accessToken")


# ------------------------------------------------------------ addresses that are fixed


def test_fixed_addresses(setting, store):
    """169.254.170.2 and 169.254.169.254, in a network of their own where all of them live."""
    name = f"zc-cred-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    prefix = ["nsenter", f"--net=/run/netns/{name}"]
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        for command in (["ip", "link", "set", "lo", "up"],
                        ["ip", "addr", "add", "169.254.170.2/32", "dev", "lo"],
                        ["ip", "addr", "add", "169.254.169.254/32", "dev", "lo"]):
            subprocess.run([*prefix, *command], check=True)
        with s3.Versitygw(os.path.join(setting.home, "inner"), prefix=prefix) as inner:
            script = (f"import sys, time; sys.path.insert(0, {os.path.dirname(here)!r})\n"
                      "from servers import aws, s3\n"
                      "keys = aws.Static(s3.ACCESS_KEY, s3.SECRET_KEY)\n"
                      "aws.Container(keys, path='/v2/c', host='169.254.170.2', port=80).start()\n"
                      "aws.Imds(keys, host='169.254.169.254', port=80).start()\n"
                      f"s3.wait_for_port({inner.port})\n"
                      f"c = s3.Versitygw({inner.folder!r}, port={inner.port}).client()\n"
                      "c.create_bucket(Bucket='bucket'); c.put_object(Bucket='bucket', Key='x', Body=b'1')\n"
                      "print('ready', flush=True); time.sleep(600)\n")
            with subprocess.Popen([*prefix, "/usr/bin/python3", "-c", script], stdout=subprocess.PIPE,
                                  text=True) as servers:
                try:
                    assert servers.stdout.readline() == "ready\n"
                    base = {"AWS_ENDPOINT_URL_S3": inner.url, "AWS_REGION": s3.REGION,
                            "http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
                    for env in ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/c"},
                                {"AWS_EC2_METADATA_DISABLED": "false"}):
                        m = setting.zc.mount("s3://bucket", env={**base, **env}, prefix=prefix)
                        assert m.read("x") == b"1"
                        assert m.umount().returncode == 0
                finally:
                    servers.kill()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


# ------------------------------------------------------------ a real STS


def test_real_sts_assume_role(zc, stores, tree):
    """MinIO's: it checks our signature, and its session token is part of every request."""
    server = stores.get("minio")
    bucket = stores.bucket(server, "tree", tree[0])
    os.makedirs(os.path.join(zc.work, ".aws"), exist_ok=True)
    with open(os.path.join(zc.work, ".aws/config"), "w", encoding="ascii") as f:
        f.write("[default]\nrole_arn = arn:minio:iam:::role/dummy-internal\nsource_profile = base\n"
                "duration_seconds = 900\n[profile base]\n"
                f"aws_access_key_id = {sub_account(server)[0]}\n"
                f"aws_secret_access_key = {sub_account(server)[1]}\n")
    env = {"AWS_ENDPOINT_URL": server.url, "AWS_REGION": s3.REGION}
    m = zc.mount(f"s3://{bucket}", env=env)
    with open(os.path.join(tree[0], "chunk+1"), "rb") as f:
        assert m.read("chunk+1") == f.read()
    assert len(os.listdir(m.join("many/5"))) == 30


def sub_account(server):
    """Sessions of the root account may be switched off; they are not in a server of the tests."""
    return s3.ACCESS_KEY, s3.SECRET_KEY


def test_real_sts_web_identity(zc, work):
    """MinIO trusts a provider of ours, fetches its keys and checks the token's signature."""
    with aws.OidcProvider(work) as provider:
        class Trusting(s3.Minio):
            def command(self, binary):
                command, env = super().command(binary)
                return command, {**env,
                                 "MINIO_IDENTITY_OPENID_CONFIG_URL":
                                     provider.url + "/.well-known/openid-configuration",
                                 "MINIO_IDENTITY_OPENID_CLIENT_ID": "zcache-test",
                                 "MINIO_IDENTITY_OPENID_CLAIM_NAME": "policy"}
        with Trusting(os.path.join(work, "server")) as server:
            client = server.client()
            client.create_bucket(Bucket="web")
            client.put_object(Bucket="web", Key="x", Body=b"by web identity")
            path = os.path.join(work, "token")
            # A provider whose tokens name their policy themselves has no role: any that its parser
            # takes will do.
            env = {"AWS_ENDPOINT_URL": server.url, "AWS_REGION": s3.REGION,
                   "AWS_WEB_IDENTITY_TOKEN_FILE": path, "AWS_ROLE_ARN": "arn:minio:iam:::role/dummy-internal"}
            with open(path, "w", encoding="ascii") as f:
                f.write(provider.token("zcache-test", policy="readwrite") + "\n")
            # The server learns of the provider some time after it has begun to listen.
            def knows():
                point, cache = zc.place()
                r = zc.run("mount", "--cache-dir", cache, "s3://web", point, env=env)
                return r.returncode == 0 and zc.ok("umount", point)
            wait_for(knows, 30, 0.3, "the server does not take the provider's token")
            m = zc.mount("s3://web", env=env)
            assert m.read("x") == b"by web identity"
            assert m.umount().returncode == 0
            with open(path, "w", encoding="ascii") as f:
                f.write(provider.token("zcache-test", life=-60, policy="readwrite") + "\n")
            point, cache = zc.place()
            zc.fails("mount", "--cache-dir", cache, "s3://web", point, env=env,
                     words=["AssumeRoleWithWebIdentity", "HTTP 400|ExpiredToken|InvalidParameterValue"])


if sys.flags.optimize:
    raise RuntimeError("tests without assertions cannot fail")
