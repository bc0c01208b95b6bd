import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer } from "node:tls";
import { describe, expect, it } from "@jest/globals";
import { createSelfSignedCertificate } from "./certificate.ts";

const NOW = Date.UTC(2030, 0, 31, 12);

describe("createSelfSignedCertificate", () => {
  it("makes a certificate that Node reads as written", () => {
    const { cert } = createSelfSignedCertificate("drover-issuer", NOW);

    const parsed = new X509Certificate(cert);

    expect(parsed.subject).toBe("CN=drover-issuer");
    expect(parsed.issuer).toBe("CN=drover-issuer");
    expect(parsed.subjectAltName).toBe("DNS:drover-issuer");
    expect(parsed.ca).toBe(false);
    expect(parsed.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
    expect(parsed.verify(parsed.publicKey)).toBe(true);
    expect(parsed.checkHost("drover-issuer")).toBe("drover-issuer");
    expect(Date.parse(parsed.validFrom)).toBe(NOW - 3600_000);
    expect(Date.parse(parsed.validTo)).toBe(NOW + 10 * 365 * 24 * 3600 * 1000);
  });

  it("writes an end after 2049 in the long form of time", () => {
    const { cert } = createSelfSignedCertificate("drover-issuer", Date.UTC(2045, 5, 1));

    expect(new X509Certificate(cert).validTo).toContain("2055");
  });

  it("gives every certificate a positive serial number of its own", () => {
    const serials = Array.from(
      { length: 20 },
      () => new X509Certificate(createSelfSignedCertificate("a", NOW).cert).serialNumber,
    );

    expect(new Set(serials).size).toBe(20);
    for (const serial of serials) expect(serial).toMatch(/^[4-7][0-9A-F]{31}$/);
  });
});

describe("a TLS handshake with a pinned certificate", () => {
  it("succeeds with the certificate itself and its name", async () => {
    expect(await handshake("own")).toBe("hello");
  });

  it("fails when another certificate of the same name is pinned", async () => {
    await expect(handshake("other")).rejects.toMatchObject({ code: expect.any(String) });
  });
});

async function handshake(pinned: "own" | "other"): Promise<string> {
  const identity = createSelfSignedCertificate("drover-issuer", Date.now());
  const server = createServer(identity, (socket) => socket.end("hello"));
  server.on("tlsClientError", () => {});
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const ca = pinned === "own" ? identity : createSelfSignedCertificate("drover-issuer", Date.now());
  const socket = connect({
    host: "127.0.0.1",
    port,
    ca: ca.cert,
    servername: "drover-issuer",
    minVersion: "TLSv1.3",
  });
  try {
    return await new Promise<string>((resolve, reject) => {
      let text = "";
      socket.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
      socket.once("end", () => resolve(text));
      socket.once("error", reject);
    });
  } finally {
    socket.destroy();
    server.close();
  }
}
