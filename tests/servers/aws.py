# SPDX-License-Identifier: Apache-2.0
"""Who hands out AWS credentials, on loopback: instance metadata (version 2), a container's credentials
service, STS and IAM Identity Center, each speaking the real one's protocol and refusing what the real
one refuses (signatures are computed anew and compared).

What they hand out are accounts of a real S3 server, which deletes them when they end: a client that
uses keys beyond their time is refused by the store and not by a test.

    with Accounts(folder) as store, Imds(store, life=5) as imds: ...
"""

import base64
import collections
import datetime
import hashlib
import hmac
import http.server
import json
import math
import os
import secrets
import socket
import subprocess
import threading
import time
import urllib.parse

from . import s3

ROLE = "arn:aws:iam::123456789012:role/reader"


class Accounts(s3.Versitygw):
    """versitygw with accounts that can be made and deleted while it runs."""

    def command(self, binary):
        iam = os.path.join(self.folder, "iam")
        os.makedirs(iam, exist_ok=True)
        command, env = super().command(binary)
        at = command.index("posix")
        return command[:at] + ["--iam-dir", iam, "--iam-cache-disable"] + command[at:], env

    def admin(self, *args):
        subprocess.run(
            [os.path.join(s3.BIN, "versitygw"), "admin", "--access", s3.ACCESS_KEY, "--secret",
             s3.SECRET_KEY, "--endpoint-url", self.url, *args], check=True, capture_output=True)

    def make(self):
        """A new account -> (id, secret)."""
        key, secret = "AKIA" + secrets.token_hex(8).upper(), secrets.token_hex(20)
        self.admin("create-user", "--access", key, "--secret", secret, "--role", "admin")
        return key, secret

    def delete(self, key):
        self.admin("delete-user", "--access", key)


class Issuer:
    """Keys that end after `life` seconds: whole seconds, as the real ones tell them."""

    GRACE = 0.5  # of the store: it deletes the account a little later

    def __init__(self, store, life):
        self.store, self.life = store, life
        self.issued, self.secrets, self.timers = [], [], []
        self.lock = threading.Lock()

    def issue(self):
        key, secret = self.store.make()
        end = math.ceil(time.time() + self.life)
        timer = threading.Timer(end + self.GRACE - time.time(), self.revoke, [key])
        timer.daemon = True
        timer.start()
        with self.lock:
            self.issued.append(key)
            self.secrets.append(secret)
            self.timers.append(timer)
        return {"id": key, "secret": secret, "token": "", "end": end}

    def revoke(self, key):
        try:
            self.store.delete(key)
        except subprocess.CalledProcessError:
            pass  # it is gone already, or the server is

    def stop(self):
        for timer in self.timers:
            timer.cancel()


class Static:
    """Always the same keys, which never end in the store. For servers whose answers matter, not the
    store's view of them."""

    def __init__(self, key, secret, life=3600, token=""):
        self.key, self.secret, self.token, self.life = key, secret, token, life
        self.issued, self.secrets = [], [secret]

    def issue(self):
        self.issued.append(self.key)
        return {"id": self.key, "secret": self.secret, "token": self.token,
                "end": int(time.time() + self.life)}

    def stop(self):
        pass


def iso(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class HttpServer:
    """Base of all below.  answer(method, path, query, headers, body) -> (status, headers, body);
    requests counts by a word of the subclass's choice.  hang: accepts and is silent."""

    def __init__(self, port=None, host="127.0.0.1"):
        self.host, self.port = host, port or s3.free_port()
        self.requests = collections.Counter()
        self.fault = None
        self.server = self.thread = None
        self.connections = set()
        self.released = threading.Event()

    @property
    def url(self):
        return f"http://{self.host}:{self.port}"

    def start(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                outer.connections.add(self.connection)

            def finish(self):
                outer.connections.discard(self.connection)
                try:
                    super().finish()
                except OSError:
                    pass  # stop() was faster

            def serve(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query))
                headers = {k.lower(): v for k, v in self.headers.items()}
                fault = outer.fault
                if fault == "hang":
                    outer.released.wait(120)
                    self.close_connection = True
                    return
                if isinstance(fault, tuple):
                    status, more, answer = fault
                else:
                    status, more, answer = outer.answer(self.command, url.path, query, headers, body)
                if isinstance(answer, str):
                    answer = answer.encode()
                self.send_response(status)
                for k, v in more.items():
                    self.send_header(k, v)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_POST = serve

            def log_message(self, *args):
                pass

        http.server.ThreadingHTTPServer.allow_reuse_address = True
        self.released.clear()
        self.server = http.server.ThreadingHTTPServer((self.host, self.port), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True)
        self.thread.start()
        return self

    def stop(self):
        self.released.set()
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            for connection in list(self.connections):
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self.server = None

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    def answer(self, method, path, query, headers, body):
        raise NotImplementedError


class Imds(HttpServer):
    """Instance metadata: PUT a token, then the role, then its keys. Without a valid token: 401.
    Keys are renewed when half of their life is over, as the real one does it some time ahead."""

    def __init__(self, issuer, role="instance-role", **kw):
        super().__init__(**kw)
        self.issuer, self.role = issuer, role
        self.tokens, self.current = set(), None
        self.lock = threading.Lock()

    def keys(self):
        with self.lock:
            if not self.current or self.current["end"] - time.time() < self.issuer.life / 2:
                self.current = self.issuer.issue()
            return self.current

    def answer(self, method, path, query, headers, body):
        if path == "/latest/api/token":
            ttl = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            if method != "PUT":
                return 405, {}, ""
            if not ttl.isdigit() or not 1 <= int(ttl) <= 21600 or "x-forwarded-for" in headers:
                return 400, {}, ""
            token = base64.b64encode(secrets.token_bytes(40)).decode()
            self.tokens.add(token)
            self.requests["token"] += 1
            return 200, {"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": ttl}, token
        if headers.get("x-aws-ec2-metadata-token") not in self.tokens:
            self.requests["unauthorized"] += 1
            return 401, {}, ""
        folder = "/latest/meta-data/iam/security-credentials/"
        if path == folder:
            return (200, {}, self.role) if self.role else (404, {}, "")
        if self.role and path == folder + self.role:
            self.requests["keys"] += 1
            k = self.keys()
            return 200, {"Content-Type": "text/plain"}, json.dumps(
                {"Code": "Success", "LastUpdated": iso(time.time()), "Type": "AWS-HMAC",
                 "AccessKeyId": k["id"], "SecretAccessKey": k["secret"], "Token": k["token"],
                 "Expiration": iso(k["end"])}, indent=2)
        return 404, {}, ""


class Container(HttpServer):
    """ECS and EKS: one GET, with an authorization token where one is expected (a string, or a file
    whose content counts at the time of the request)."""

    def __init__(self, issuer, path="/v2/credentials/abc", token=None, token_file=None, **kw):
        super().__init__(**kw)
        self.issuer, self.path, self.token, self.token_file = issuer, path, token, token_file

    def answer(self, method, path, query, headers, body):
        expected = self.token
        if self.token_file:
            with open(self.token_file, encoding="ascii") as f:
                expected = f.read().strip()
        if path != self.path:
            return 404, {}, json.dumps({"code": "NotFound", "message": "no such task"})
        if headers.get("authorization") != expected:
            return 401, {}, json.dumps({"code": "Unauthorized", "message": "the token is not right"})
        self.requests["keys"] += 1
        k = self.issuer.issue()
        return 200, {"Content-Type": "application/json"}, json.dumps(
            {"RoleArn": ROLE, "AccessKeyId": k["id"], "SecretAccessKey": k["secret"],
             "Token": k["token"], "Expiration": iso(k["end"])})


class Sts(HttpServer):
    """AssumeRole (signed by one of `callers`: {id: (secret, token)}) and AssumeRoleWithWebIdentity
    (with the text of a file as the token)."""

    def __init__(self, issuer, callers=None, web_token_file=None, external_id=None, region="us-east-1", **kw):
        super().__init__(**kw)
        self.issuer, self.callers = issuer, callers or {}
        self.web_token_file, self.external_id, self.region = web_token_file, external_id, region
        self.calls = []

    def refuse(self, status, code, message):
        self.requests["refused"] += 1
        return status, {"Content-Type": "text/xml"}, (
            '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
            f"<Code>{code}</Code><Message>{message}</Message></Error>"
            "<RequestId>a1b2</RequestId></ErrorResponse>")

    def check_signature(self, method, path, query, headers, body):
        """None, or why not."""
        auth = headers.get("authorization", "")
        if not auth.startswith("AWS4-HMAC-SHA256 "):
            return "MissingAuthenticationToken", "Request is missing Authentication Token"
        parts = dict(p.strip().split("=", 1) for p in auth[len("AWS4-HMAC-SHA256 "):].split(","))
        key, day, region, service, end = parts["Credential"].split("/")
        names = parts["SignedHeaders"].split(";")
        if key not in self.callers:
            return "InvalidClientTokenId", "The security token included in the request is invalid."
        secret, token = self.callers[key]
        if (headers.get("x-amz-security-token") or None) != (token or None):
            return "InvalidClientTokenId", "The security token included in the request is invalid."
        if (service, end, region) != ("sts", "aws4_request", self.region):
            return "SignatureDoesNotMatch", f"Credential should be scoped to {self.region}/sts"
        date = headers["x-amz-date"]
        then = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
        if abs(time.time() - then.timestamp()) > 300:
            return "SignatureDoesNotMatch", f"Signature expired: {date} is now earlier than it may be"
        must = {"host", "x-amz-date"} | ({"x-amz-security-token"} if token else set())
        if names != sorted(names) or not must <= set(names):
            return "SignatureDoesNotMatch", "headers are not signed"
        canonical = "\n".join(
            [method, path, urllib.parse.urlencode(sorted(query.items())),
             *(f"{n}:{headers[n].strip()}" for n in names), "", ";".join(names),
             hashlib.sha256(body).hexdigest()])
        scope = f"{day}/{region}/sts/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", date, scope,
                          hashlib.sha256(canonical.encode()).hexdigest()])
        k = ("AWS4" + secret).encode()
        for part in (day, region, "sts", "aws4_request"):
            k = hmac.new(k, part.encode(), hashlib.sha256).digest()
        if hmac.new(k, text.encode(), hashlib.sha256).hexdigest() != parts["Signature"]:
            return "SignatureDoesNotMatch", "The request signature we calculated does not match"
        return None

    def answer(self, method, path, query, headers, body):
        form = dict(urllib.parse.parse_qsl(body.decode()))
        action = form.get("Action")
        if method != "POST" or form.get("Version") != "2011-06-15":
            return self.refuse(400, "InvalidAction", "no such version")
        if not form.get("RoleArn") or not 2 <= len(form.get("RoleSessionName", "")) <= 64:
            return self.refuse(400, "ValidationError", "RoleArn and RoleSessionName are required")
        if action == "AssumeRole":
            wrong = self.check_signature(method, path, query, headers, body)
            if wrong:
                return self.refuse(403, *wrong)
            if self.external_id and form.get("ExternalId") != self.external_id:
                return self.refuse(403, "AccessDenied", "not authorized to perform: sts:AssumeRole")
        elif action == "AssumeRoleWithWebIdentity":
            with open(self.web_token_file, encoding="ascii") as f:
                expected = f.read().strip()
            if form.get("WebIdentityToken") != expected:
                return self.refuse(400, "InvalidIdentityToken", "No OpenIDConnect provider found")
            if "authorization" in headers:
                return self.refuse(400, "ValidationError", "this call is not signed")
        else:
            return self.refuse(400, "InvalidAction", f"Could not find operation {action}")
        self.requests[action] += 1
        self.calls.append({**form, "Authorization": headers.get("authorization", "")})
        k = self.issuer.issue()
        self.callers[k["id"]] = (k["secret"], k["token"])  # for chains of roles
        return 200, {"Content-Type": "text/xml"}, (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">\n  <{action}Result>\n'
            f"    <AssumedRoleUser><AssumedRoleId>ARO:x</AssumedRoleId><Arn>{form['RoleArn']}</Arn>"
            f"</AssumedRoleUser>\n    <Credentials>\n      <AccessKeyId>{k['id']}</AccessKeyId>\n"
            f"      <SecretAccessKey>{k['secret']}</SecretAccessKey>\n"
            f"      <SessionToken>{k['token']}</SessionToken>\n"
            f"      <Expiration>{iso(k['end'])}</Expiration>\n    </Credentials>\n  </{action}Result>\n"
            f"  <ResponseMetadata><RequestId>c6104cbe</RequestId></ResponseMetadata>\n</{action}Response>\n")


class Sso(HttpServer):
    """The portal's GetRoleCredentials and the login service's CreateToken (refresh tokens are good
    for one use)."""

    def __init__(self, issuer, account="123456789012", role="Reader", token_life=3600, **kw):
        super().__init__(**kw)
        self.issuer, self.account, self.role, self.token_life = issuer, account, role, token_life
        self.client = ("client-id", "client-secret-" + secrets.token_hex(8))
        self.tokens = {}  # access token -> end
        self.refresh = set()
        self.renewal_takes = 0  # seconds between a renewal and its answer

    def login(self, home, key, session, refresh=True, life=None):
        """What `aws sso login` leaves behind -> the file's path."""
        access, again = "acc-" + secrets.token_hex(16), "ref-" + secrets.token_hex(16)
        end = time.time() + (self.token_life if life is None else life)
        self.tokens[access] = end
        doc = {"startUrl": "https://d-1234.awsapps.com/start", "region": "us-east-1",
               "accessToken": access, "expiresAt": iso(end)}
        if refresh:
            self.refresh.add(again)
            doc |= {"clientId": self.client[0], "clientSecret": self.client[1], "refreshToken": again,
                    "registrationExpiresAt": iso(time.time() + 86400)}
        folder = os.path.join(home, ".aws/sso/cache")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, hashlib.sha1(key.encode()).hexdigest() + ".json")
        with open(path, "w", encoding="ascii") as f:
            json.dump(doc, f)
        return path

    def answer(self, method, path, query, headers, body):
        if path == "/federation/credentials" and method == "GET":
            if self.tokens.get(headers.get("x-amz-sso_bearer_token"), 0) < time.time():
                self.requests["unauthorized"] += 1
                return 401, {}, json.dumps({"__type": "UnauthorizedException",
                                            "message": "Session token not found or invalid"})
            if (query.get("account_id"), query.get("role_name")) != (self.account, self.role):
                return 403, {}, json.dumps({"__type": "ForbiddenException", "message": "No access"})
            self.requests["keys"] += 1
            k = self.issuer.issue()
            return 200, {"Content-Type": "application/json"}, json.dumps(
                {"roleCredentials": {"accessKeyId": k["id"], "secretAccessKey": k["secret"],
                                     "sessionToken": k["token"], "expiration": k["end"] * 1000}})
        if path == "/token" and method == "POST":
            form = json.loads(body)
            if (form.get("clientId"), form.get("clientSecret")) != self.client:
                return 400, {}, json.dumps({"error": "invalid_client", "error_description": "who?"})
            if form.get("grantType") != "refresh_token" or form.get("refreshToken") not in self.refresh:
                self.requests["spent"] += 1
                return 400, {}, json.dumps({"error": "invalid_grant",
                                            "error_description": "Invalid refresh token provided"})
            self.refresh.discard(form["refreshToken"])
            access, again = "acc-" + secrets.token_hex(16), "ref-" + secrets.token_hex(16)
            self.tokens[access] = time.time() + self.token_life
            self.refresh.add(again)
            self.requests["refreshed"] += 1
            time.sleep(self.renewal_takes)
            return 200, {"Content-Type": "application/json"}, json.dumps(
                {"accessToken": access, "tokenType": "Bearer", "expiresIn": self.token_life,
                 "refreshToken": again})
        return 404, {}, "{}"


class OidcProvider(HttpServer):
    """An OpenID Connect provider with one RSA key, for a real STS that checks what a token says."""

    def __init__(self, folder, **kw):
        super().__init__(**kw)
        self.key = os.path.join(folder, "oidc.pem")
        subprocess.run(["openssl", "genrsa", "-out", self.key, "2048"], check=True, capture_output=True)
        out = subprocess.run(["openssl", "rsa", "-in", self.key, "-noout", "-modulus"], check=True,
                             capture_output=True, text=True).stdout
        self.modulus = bytes.fromhex(out.strip().split("=", 1)[1])

    @staticmethod
    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def token(self, audience, life=3600, **claims):
        now = int(time.time())
        body = {"iss": self.url, "sub": "a-job", "aud": audience, "iat": now, "exp": now + life, **claims}
        text = ".".join(self.encode(json.dumps(part).encode())
                        for part in ({"alg": "RS256", "typ": "JWT", "kid": "k1"}, body))
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=text.encode(),
                                   check=True, capture_output=True).stdout
        return text + "." + self.encode(signature)

    def answer(self, method, path, query, headers, body):
        self.requests[path] += 1
        if path == "/.well-known/openid-configuration":
            return 200, {"Content-Type": "application/json"}, json.dumps(
                {"issuer": self.url, "jwks_uri": self.url + "/keys",
                 "authorization_endpoint": self.url + "/auth", "token_endpoint": self.url + "/token",
                 "userinfo_endpoint": self.url + "/userinfo", "response_types_supported": ["id_token"],
                 "subject_types_supported": ["public"],
                 "id_token_signing_alg_values_supported": ["RS256"]})
        if path == "/keys":
            return 200, {"Content-Type": "application/json"}, json.dumps(
                {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1", "e": "AQAB",
                           "n": self.encode(self.modulus)}]})
        return 404, {}, ""
