import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import {
  credentialSourceContract,
  request,
  type SourceRig,
} from "../../../test/contracts/credential-source.ts";
import { EncryptedFile } from "./encrypted-file.ts";
import { LocalFileSource } from "./local-file-source.ts";

const VALUE = "CNRY-local-value";

async function createParts() {
  const directory = await mkdtemp(join(tmpdir(), "drover-credentials-"));
  const path = join(directory, "data", "credentials");
  const keyPath = join(directory, "config", "credentials.key");
  const file = new EncryptedFile({ path, keyPath });
  return { directory, path, keyPath, file, source: new LocalFileSource({ file }) };
}

credentialSourceContract("LocalFileSource", async (): Promise<SourceRig> => {
  const { directory, keyPath, file, source } = await createParts();
  return {
    source,
    async put(tenant, name, key, value) {
      await file.change((secrets) => ({
        ...secrets,
        [tenant]: { ...secrets[tenant], [name]: { [key]: value } },
      }));
    },
    async remove(tenant) {
      await file.change(({ [tenant]: _gone, ...secrets }) => secrets);
    },
    breakDown: async () => await chmod(keyPath, 0o640),
    close: async () => await rm(directory, { recursive: true }),
  };
});

describe("the encrypted file of local mode", () => {
  let parts: Awaited<ReturnType<typeof createParts>>;
  beforeEach(async () => {
    parts = await createParts();
    await parts.file.change(() => ({ "team-a": { "docs-token": { token: VALUE } } }));
  });
  afterEach(async () => await rm(parts.directory, { recursive: true }));

  const unavailable = (says: RegExp) => ({
    code: "CREDENTIAL_UNAVAILABLE",
    message: expect.stringMatching(says),
  });

  it("holds neither a value nor the name of a secret in plain text, and never the same twice", async () => {
    const first = await readFile(parts.path, "utf8");
    await parts.file.change((secrets) => secrets);
    const second = await readFile(parts.path, "utf8");

    const [header = "", , , sealed = ""] = first.split(".");
    expect(JSON.parse(Buffer.from(header, "base64url").toString())).toEqual({
      alg: "dir",
      enc: "A256GCM",
    });
    expect(Buffer.from(sealed, "base64url").toString("latin1")).not.toMatch(/CNRY|docs-token/);
    expect(second).not.toBe(first);
  });

  it("makes file and key for its owner alone", async () => {
    for (const path of [parts.path, parts.keyPath]) {
      expect((await stat(path)).mode & 0o777).toBe(0o600);
    }
    expect(await readFile(parts.path, "utf8")).not.toContain(
      (await readFile(parts.keyPath, "utf8")).trim(),
    );
  });

  it("does not find anything, and says what to run, while there is no file", async () => {
    await rm(parts.path);

    await expect(parts.source.read(request())).rejects.toMatchObject({
      code: "CREDENTIAL_NOT_FOUND",
      message: expect.stringContaining("drover credentials set team-a docs-token token"),
    });
  });

  it("refuses a file of another key, or one in which a single character was changed", async () => {
    const other = await createParts();
    await other.file.change(() => ({ "team-a": {} }));
    const text = await readFile(parts.path, "utf8");
    const at = text.lastIndexOf(".") - 3;
    const changed = `${text.slice(0, at)}${text[at] === "A" ? "B" : "A"}${text.slice(at + 1)}`;

    for (const bad of [changed, await readFile(other.path, "utf8"), `${VALUE}: plain`, ""]) {
      await writeFile(parts.path, bad);
      await expect(parts.source.read(request())).rejects.toMatchObject(unavailable(/was changed/));
    }
    await rm(other.directory, { recursive: true });
  });

  it("refuses a file that names another algorithm, though its key would open it", async () => {
    const { CompactEncrypt } = await import("jose");
    const key = Buffer.from(await readFile(parts.keyPath, "utf8"), "base64url");
    const text = await new CompactEncrypt(new TextEncoder().encode("{}"))
      .setProtectedHeader({ alg: "A256KW", enc: "A256GCM" })
      .encrypt(key);
    await writeFile(parts.path, text);

    await expect(parts.source.read(request())).rejects.toMatchObject(unavailable(/was changed/));
  });

  it("makes no new key over a file whose key is lost", async () => {
    await rm(parts.keyPath);

    await expect(parts.source.read(request())).rejects.toMatchObject(unavailable(/put the key/));
    await expect(parts.file.change(() => ({}))).rejects.toMatchObject(unavailable(/put the key/));
  });

  it.each(["", "CNRY-not-a-key", "Q05SWQ"])(
    "refuses the key %j without quoting it",
    async (key) => {
      await writeFile(parts.keyPath, key);

      await expect(parts.source.read(request())).rejects.toMatchObject({
        code: "CREDENTIAL_UNAVAILABLE",
        message: expect.stringMatching(/^(?!.*(CNRY|Q05SWQ)).*something else/),
      });
    },
  );

  it("names the fix when others may read the key", async () => {
    await chmod(parts.keyPath, 0o644);

    await expect(parts.source.read(request())).rejects.toThrow(/chmod 600 on the key file/);
  });

  it("has another version for the same value elsewhere, so that equal values do not show", async () => {
    await parts.file.change(() => ({ "team-a": { a: { token: VALUE }, b: { token: VALUE } } }));
    const versions = await Promise.all(
      ["a", "b"].map(async (name) => {
        const entry = { name: "docs", secretRef: { name, key: "token" } };
        return (await parts.source.read(request({ entry }))).version;
      }),
    );

    expect(versions[0]).not.toBe(versions[1]);
  });
});
