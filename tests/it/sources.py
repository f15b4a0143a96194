# SPDX-License-Identifier: Apache-2.0
"""The sources that the contract is about, all alike: what can be put into them, taken out of them, and
switched off.  A source has one store or, in the mount of several, one below each of its prefixes."""

import os
import shutil
import urllib.parse

from servers import s3

KINDS = ["file", "versitygw", "minio", "webhdfs", "httpfs", "two"]


class FileStore:
    """A folder."""

    served = False

    def __init__(self, folder):
        self.folder, self.env = folder, {}
        os.makedirs(folder, exist_ok=True)

    def url(self, place):
        os.makedirs(os.path.join(self.folder, place), exist_ok=True)
        return f"file://{self.folder}/{place}"

    def put(self, path, data):
        full = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full + ".part", "wb") as f:
            f.write(data)
        os.rename(full + ".part", full)

    def put_many(self, files):
        for path, data in files.items():
            full = os.path.join(self.folder, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as f:
                f.write(data)

    def delete(self, path):
        os.unlink(os.path.join(self.folder, path))

    def stop(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class S3Store:
    """A bucket of a server of its own, which may be killed."""

    served = True

    def __init__(self, kind, folder):
        self.server = s3.KINDS[kind](folder).start()
        self.client = self.server.client()
        self.client.create_bucket(Bucket="contract")
        self.env = self.server.env()

    def url(self, place):
        return f"s3://contract/{place}"

    def put(self, path, data):
        self.client.put_object(Bucket="contract", Key=path, Body=data)

    def put_many(self, files):
        import concurrent.futures
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda kv: self.put(*kv), files.items()))

    def delete(self, path):
        self.client.delete_object(Bucket="contract", Key=path)

    def requests(self):
        return self.server.requests()

    def kill(self):
        self.server.kill()

    def start(self):
        self.server.start()

    def freeze(self):
        self.server.freeze()

    def thaw(self):
        self.server.thaw()

    def stop(self):
        self.server.kill()


class HdfsStore:
    """A folder of a cluster, which others use too; read from the NameNode, or through the gateway."""

    served = True

    def __init__(self, cluster, folder, gateway=False):
        self.cluster, self.folder, self.env = cluster, folder, cluster.env()
        self.daemon = "httpfs" if gateway else "nn"
        self.base = f"webhdfs://127.0.0.1:{cluster.gateway()}" if gateway else cluster.url
        self.made = set()

    def url(self, place):
        if place not in self.made:
            self.cluster.mkdir(f"{self.folder}/{place}")
            self.made.add(place)
        return f"{self.base}{self.folder}/{place}"

    def put(self, path, data):
        """Now and then by renaming a new file over the old one, as jobs do."""
        path = f"{self.folder}/{path}"
        if sum(data[:8]) % 3:
            self.cluster.put(path, data)
        else:
            self.cluster.put(path + ".part", data)
            self.cluster.rename(path + ".part", path)

    def put_many(self, files):
        self.cluster.put_many({f"{self.folder}/{p}": d for p, d in files.items()})

    def delete(self, path):
        self.cluster.delete(f"{self.folder}/{path}")

    def kill(self):
        self.cluster.daemons[self.daemon].kill()

    def start(self):
        self.cluster.daemons[self.daemon].start()
        self.ready()

    def ready(self):
        if self.daemon == "nn":
            self.cluster.wait_ready()
        else:
            s3.wait_for_port(urllib.parse.urlsplit(self.base).port)

    def freeze(self):
        self.cluster.daemons[self.daemon].freeze()

    def thaw(self):
        self.cluster.daemons[self.daemon].thaw()

    def stop(self):
        self.cluster.delete(self.folder)


class Source:
    """A kind of source; .stores has the store of each prefix of the mount ("" for the whole)."""

    def __init__(self, kind, folder, cluster):
        """cluster: a function that gives one, started when it is first called."""
        self.kind, self.n = kind, 0
        make = {
            "file": lambda: {"": FileStore(folder)},
            "versitygw": lambda: {"": S3Store("versitygw", folder)},
            "minio": lambda: {"": S3Store("minio", folder)},
            "webhdfs": lambda: {"": HdfsStore(cluster(), "/contract")},
            "httpfs": lambda: {"": HdfsStore(cluster(), "/contract-gateway", gateway=True)},
            "two": lambda: {"in/one/": S3Store("versitygw", folder),
                            "two/": HdfsStore(cluster(), "/contract-two")},
        }
        self.stores = make[kind]()
        self.served = all(s.served for s in self.stores.values())

    def place(self, name=None):
        self.n += 1
        return Place(self, name or f"place{self.n}")

    def stop(self):
        for s in self.stores.values():
            s.stop()


class Place:
    """A folder in each store of a source, and the mount of them. Paths are those of the mount."""

    def __init__(self, source, name):
        self.source, self.name = source, name
        self.prefixes = list(source.stores)

    def _store(self, path):
        prefix = next(p for p in self.prefixes if path.startswith(p))
        return self.source.stores[prefix], f"{self.name}/{path[len(prefix):]}"

    def put(self, path, data):
        store, path = self._store(path)
        store.put(path, data)

    def delete(self, path):
        store, path = self._store(path)
        store.delete(path)

    def fill(self, make):
        """make(prefix) -> {path below it: bytes}; gives all of it with the mount's paths."""
        all_files = {}
        for prefix, store in self.source.stores.items():
            files = make(prefix)
            store.put_many({f"{self.name}/{p}": d for p, d in files.items()})
            all_files |= {prefix + p: d for p, d in files.items()}
        return all_files

    def words(self):
        """How `zcache mount` is told."""
        return [(f"/{p.rstrip('/')}=" if p else "") + s.url(self.name) for p, s in self.source.stores.items()]

    def requests(self):
        """What the servers say they were asked, those that say."""
        return [s.requests() for s in self.source.stores.values() if hasattr(s, "requests")]

    def env(self):
        return {k: v for s in self.source.stores.values() for k, v in s.env.items()}

    def mount(self, zc, *options, **kw):
        return zc.mount(self.words(), *options, env=self.env(), **kw)
