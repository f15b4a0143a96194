# SPDX-License-Identifier: Apache-2.0
"""A store with accounts, and the ways to be given keys of them, as tests of credentials use them."""

import concurrent.futures
import json
import os

import pytest

from conftest import make_bytes
from servers import aws, s3

N = 300
SIZE = 40_000


@pytest.fixture(scope="module")
def store(base, request):
    """A store with accounts, and a bucket of small files."""
    with aws.Accounts(os.path.join(base, "accounts-" + request.module.__name__)) as server:
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


@pytest.fixture
def setting(zc, store, issuer):
    s = Setting(zc, store, issuer)
    yield s
    for m in zc.mounts:
        if not m.over:
            m.umount()
    s.stop()


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
