# SPDX-License-Identifier: Apache-2.0
"""Keys that are not to be had: what a mount says about each source that has none."""

import json
import os
import shlex
import subprocess

import pytest

from credentials import epoch, issuer, setting, store  # noqa: F401
from servers import aws, s3


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
