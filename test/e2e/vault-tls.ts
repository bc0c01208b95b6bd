import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Certificate and key of the vault; the certificate is its own authority. */
export function makeVaultTls(host: string): {
  "tls.crt": string;
  "tls.key": string;
  "ca.crt": string;
} {
  const folder = mkdtempSync(join(tmpdir(), "drover-vault-tls-"));
  try {
    const [cert, key] = [join(folder, "cert"), join(folder, "key")];
    const names = `subjectAltName=DNS:${host},DNS:localhost,IP:127.0.0.1`;
    const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    const rest = ["-nodes", "-days", "30", "-subj", "/CN=e2e-vault", "-addext", names];
    execFileSync("openssl", [...request, ...rest, "-keyout", key, "-out", cert], {
      stdio: "ignore",
    });
    const crt = readFileSync(cert, "utf8");
    return { "tls.crt": crt, "tls.key": readFileSync(key, "utf8"), "ca.crt": crt };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
