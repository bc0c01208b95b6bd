import { generateKeyPairSync, randomBytes, sign } from "node:crypto";
import {
  bitString,
  boolean,
  explicit,
  integer,
  octetString,
  oid,
  sequence,
  set,
  tagged,
  time,
  utf8String,
} from "./der.ts";

const OIDS = {
  commonName: "2.5.4.3",
  ecdsaWithSha256: "1.2.840.10045.4.3.2",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  keyUsage: "2.5.29.15",
  extendedKeyUsage: "2.5.29.37",
  serverAuth: "1.3.6.1.5.5.7.3.1",
} as const;

/** It is pinned, so its end would only be an outage; rotation is a new Secret. */
const LIFE_MS = 10 * 365 * 24 * 3600 * 1000;
/** For clocks that are behind. */
const BACKDATE_MS = 3600 * 1000;

export interface TlsIdentity {
  /** PKCS #8 PEM. */
  key: string;
  /** PEM. */
  cert: string;
}

/**
 * A P-256 key and a self-signed X.509 v3 certificate (RFC 5280) for one DNS name, for a server whose
 * clients pin exactly this certificate.
 */
export function createSelfSignedCertificate(dnsName: string, nowMs: number): TlsIdentity {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const algorithm = sequence(oid(OIDS.ecdsaWithSha256));
  const name = sequence(set(sequence(oid(OIDS.commonName), utf8String(dnsName))));
  const body = sequence(
    explicit(0, integer(Buffer.from([2]))),
    integer(serialNumber()),
    algorithm,
    name,
    sequence(time(nowMs - BACKDATE_MS), time(nowMs + LIFE_MS)),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    explicit(3, extensions(dnsName)),
  );
  const certificate = sequence(body, algorithm, bitString(sign("sha256", body, privateKey)));
  return {
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    cert: pem("CERTIFICATE", certificate),
  };
}

function extensions(dnsName: string): Buffer {
  const dns = tagged(0x82, Buffer.from(dnsName, "ascii"));
  return sequence(
    extension(OIDS.subjectAltName, false, sequence(dns)),
    extension(OIDS.basicConstraints, true, sequence()),
    // digitalSignature: the first of eight bits.
    extension(OIDS.keyUsage, true, bitString(Buffer.from([0x80]), 7)),
    extension(OIDS.extendedKeyUsage, false, sequence(oid(OIDS.serverAuth))),
  );
}

function extension(id: string, critical: boolean, value: Buffer): Buffer {
  return sequence(oid(id), ...(critical ? [boolean(true)] : []), octetString(value));
}

/** Positive and not zero, up to 20 bytes (RFC 5280 §4.1.2.2). */
function serialNumber(): Buffer {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes;
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
