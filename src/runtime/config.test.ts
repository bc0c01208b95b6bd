import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "@jest/globals";
import { z } from "zod";
import { authoritiesField, loadConfig } from "./config.ts";

const schema = z.object({
  ca: authoritiesField("DROVER_CA", "Authorities of a server.").optional(),
});

it("a file with something else than certificates is refused, and what is in it is not told", () => {
  const folder = mkdtempSync(join(tmpdir(), "drover-config-"));
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const key = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  const file = join(folder, "ca.crt");
  const load = (text: string) => () => {
    writeFileSync(file, text);
    return loadConfig(schema, { DROVER_CA_FILE: file });
  };
  const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  const says = /DROVER_CA: expected certificates in PEM\. Authorities of a server\.$/;

  try {
    for (const text of [key, broken, ""]) expect(load(text)).toThrow(says);
    expect(loadConfig(schema, {})).toEqual({});
  } finally {
    rmSync(folder, { recursive: true });
  }
});
