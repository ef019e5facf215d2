"""A server of time stamps (RFC 3161) on this machine; OpenSSL answers."""

import subprocess
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

EXTENSIONS = """
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
extendedKeyUsage = critical, timeStamping
keyUsage = critical, digitalSignature
basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[req]
distinguished_name = name
[name]
[server]
serial = {folder}/serial
signer_cert = {folder}/leaf.pem
signer_key = {folder}/leaf.key
certs = {folder}/chain.pem
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha384, sha512
ess_cert_id_alg = sha256
"""


def _openssl(folder, *words):
    command = ["openssl", *map(str, words)]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)


def _certificates(folder):
    """Write a root and a certificate for time stamps, and what OpenSSL needs to answer."""
    config = folder / "openssl.cnf"
    config.write_text(EXTENSIONS.format(folder=folder))
    (folder / "serial").write_text("01\n")
    request = ("req", "-newkey", "rsa:2048", "-nodes", "-config", config)
    _openssl(folder, *request, "-x509", "-days", 30, "-subj", "/CN=Root", "-extensions", "root",
             "-keyout", "root.key", "-out", "root.pem")  # fmt: skip
    _openssl(folder, *request, "-subj", "/CN=Clock", "-keyout", "leaf.key", "-out", "leaf.csr")
    _openssl(folder, "x509", "-req", "-in", "leaf.csr", "-CA", "root.pem", "-CAkey", "root.key",
             "-CAcreateserial", "-days", 30, "-extfile", config, "-extensions", "leaf",
             "-out", "leaf.pem")  # fmt: skip
    chain = [(folder / name).read_text() for name in ("leaf.pem", "root.pem")]
    (folder / "chain.pem").write_text("".join(chain))
    return config


@contextmanager
def time_stamp_server(folder):
    """Yield the address of a server, its root certificate (PEM), and its answers in a list."""
    config, answers = _certificates(folder), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            question = folder / f"{len(answers)}.tsq"
            question.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            answer = question.with_suffix(".tsr")
            _openssl(folder, "ts", "-reply", "-queryfile", question, "-config", config,
                     "-section", "server", "-out", answer)  # fmt: skip
            answers.append(answer.read_bytes())
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(answers[-1])))
            self.end_headers()
            self.wfile.write(answers[-1])

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", folder / "root.pem", answers
    finally:
        server.shutdown()
        server.server_close()
