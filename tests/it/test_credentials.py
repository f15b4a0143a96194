# SPDX-License-Identifier: Apache-2.0
"""Where S3's keys come from: every source of AWS's chain, against servers that speak the real
protocols and hand out accounts of a real store, which deletes them when their time is over."""

import concurrent.futures
import json
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from conftest import make_bytes
from credentials import N, SIZE, epoch, issuer, setting, store  # noqa: F401
from servers import aws, s3
from zcache import alive, wait_for

WAYS = ["imds", "container", "container_token_file", "web_identity", "web_identity_profile", "assume_role",
        "assume_role_self", "assume_role_chain", "assume_role_environment", "assume_role_instance",
        "assume_role_container",
        "process", "sso", "sso_legacy", "sso_expired_login"]


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
    """Lives of four seconds, for ten seconds of reads: none fails, and the source is asked no more
    often than it must be."""
    issuer.life = LIFE
    getattr(setting, way)()
    m = setting.mount("--metadata-ttl", "minimal")
    end, rounds, failed = time.monotonic() + 2.5 * LIFE, 0, []
    while time.monotonic() < end:
        failed += epoch(m, [(rounds * 7 + i) % N for i in range(8)])
        setting.zc.ok("free", m.path)
        rounds += 1
        time.sleep(0.05)
    assert failed == [], f"{len(failed)} reads failed, first: {failed[:3]}"
    assert rounds > 10
    assert 3 <= len(issuer.issued) <= 10, f"{len(issuer.issued)} renewals in {2.5 * LIFE} s"
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
    for turn in range(2):
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
