"""Certificates for mutual TLS, made anew for every run."""

import subprocess

# X.509 extensions: an authority, the hub's own, a backend's.
_EXTENSIONS = {
    "authority": "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign",
    "hub": "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth",
    "backend": "extendedKeyUsage=clientAuth",
    "stranger": "extendedKeyUsage=clientAuth",
}


def make(folder):
    """`<name>.pem` and `<name>.key` of an authority, the hub and a backend, and of a stranger of another authority."""
    _authority(folder, "authority")
    _authority(folder, "other_authority")
    for name, signer in [("hub", "authority"), ("backend", "authority"), ("stranger", "other_authority")]:
        _signed(folder, name, signer)


def _authority(folder, name):
    _request(folder, name)
    _sign(folder, name, "authority", "-signkey", folder / f"{name}.key")


def _signed(folder, name, signer):
    _request(folder, name)
    _sign(folder, name, name, "-CA", folder / f"{signer}.pem", "-CAkey", folder / f"{signer}.key", "-CAcreateserial")


def _request(folder, name):
    _openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")


def _sign(folder, name, kind, *signer):
    extensions = folder / f"{name}.ext"
    extensions.write_text(_EXTENSIONS[kind])
    _openssl("x509", "-req", "-days", "1", "-in", folder / f"{name}.csr", "-out", folder / f"{name}.pem",
             "-extfile", extensions, *signer)


def _openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
