import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import type {
  CredentialEntry,
  CredentialRequest,
  CredentialSource,
} from "../../src/credentials/credential-source.ts";
import { describePlace } from "../../src/credentials/credential-value.ts";
import { Secret } from "../../src/runtime/secret.ts";

/** A source under test, and the hand of whoever keeps its values. */
export interface SourceRig {
  source: CredentialSource;
  /** The reference to a key of a place in a manifest; a Secret's when absent. */
  entry?(name: string, key: string): CredentialEntry;
  /** Stores a value, or another one in its place. */
  put(tenant: string, name: string, key: string, value: string): Promise<void>;
  /** Takes the whole place away. */
  remove(tenant: string, name: string): Promise<void>;
  /** Makes the source unreadable: denied, unreachable, or open to others. */
  breakDown(): Promise<void>;
  close(): Promise<void>;
}

const MARKER = "CNRY-credential-source-4f9a";

export function request(changes: Partial<CredentialRequest> = {}): CredentialRequest {
  return {
    tenant: "team-a",
    vault: "main",
    entry: secretEntry("docs-token", "token"),
    session: { id: "sesn_1", token: new Secret("session-token") },
    ...changes,
  };
}

function secretEntry(name: string, key: string): CredentialEntry {
  return { name: "docs", secretRef: { name, key } };
}

/** What every CredentialSource promises; run on each of them. */
export function credentialSourceContract(title: string, createRig: () => Promise<SourceRig>): void {
  describe(`${title} keeps the CredentialSource contract`, () => {
    let rig: SourceRig;
    beforeEach(async () => {
      rig = await createRig();
    });

    function requestFor(name = "docs-token", key = "token"): CredentialRequest {
      return request({ entry: rig.entry?.(name, key) ?? secretEntry(name, key) });
    }

    afterEach(async () => {
      await rig.close();
    });

    it("reads the value of an entry and hides it from printing", async () => {
      await rig.put("team-a", "docs-token", "token", MARKER);

      const credential = await rig.source.read(requestFor());

      expect(credential.value.reveal()).toBe(MARKER);
      expect(JSON.stringify(credential)).not.toContain(MARKER);
      expect(credential.version).toMatch(/^[\w.-]+$/);
    });

    it("gives the same version for the same value and another one after a change", async () => {
      await rig.put("team-a", "docs-token", "token", MARKER);
      const first = await rig.source.read(requestFor());
      const again = await rig.source.read(requestFor());

      await rig.put("team-a", "docs-token", "token", `${MARKER}-rotated`);
      const rotated = await rig.source.read(requestFor());

      expect(again.version).toBe(first.version);
      expect(rotated.version).not.toBe(first.version);
      expect(rotated.value.reveal()).toBe(`${MARKER}-rotated`);
    });

    it("forgives the line break that editors put at the end", async () => {
      await rig.put("team-a", "docs-token", "token", `${MARKER}\n`);

      expect((await rig.source.read(requestFor())).value.reveal()).toBe(MARKER);
    });

    it("does not find the value of another tenant", async () => {
      await rig.put("team-b", "docs-token", "token", MARKER);

      await expect(rig.source.read(requestFor())).rejects.toMatchObject({
        code: "CREDENTIAL_NOT_FOUND",
      });
    });

    it.each([
      { what: "place", name: "absent", key: "token" },
      { what: "key", name: "docs-token", key: "absent" },
      { what: "key", name: "docs-token", key: "toString" },
    ])("says which $what is missing", async ({ name, key }) => {
      await rig.put("team-a", "docs-token", "token", MARKER);
      const missing = requestFor(name, key);

      await expect(rig.source.read(missing)).rejects.toMatchObject({
        code: "CREDENTIAL_NOT_FOUND",
        message: expect.stringContaining(describePlace(missing)),
      });
    });

    it("does not find a value that was taken away", async () => {
      await rig.put("team-a", "docs-token", "token", MARKER);
      await rig.source.read(requestFor());

      await rig.remove("team-a", "docs-token");

      await expect(rig.source.read(requestFor())).rejects.toMatchObject({
        code: "CREDENTIAL_NOT_FOUND",
      });
    });

    it.each([
      { what: "empty", value: "" },
      { what: "shorter than 8 bytes", value: "short" },
      { what: "with a line break inside", value: `${MARKER}\r\nx-admin: true` },
      { what: "with a NUL", value: `${MARKER}\u0000` },
      { what: "not ASCII", value: `${MARKER}é` },
      { what: "longer than a header may be", value: "x".repeat(8193) },
    ])("refuses a value that is $what, without repeating it", async ({ value }) => {
      await rig.put("team-a", "docs-token", "token", value);

      await expect(rig.source.read(requestFor())).rejects.toMatchObject({
        code: "CREDENTIAL_UNAVAILABLE",
        message: expect.not.stringMatching(/CNRY|x-admin|xxxx/),
      });
    });

    it("says it is unavailable, not missing, when the place cannot be read", async () => {
      await rig.put("team-a", "docs-token", "token", MARKER);

      await rig.breakDown();

      await expect(rig.source.read(requestFor())).rejects.toMatchObject({
        code: "CREDENTIAL_UNAVAILABLE",
      });
    });
  });
}
