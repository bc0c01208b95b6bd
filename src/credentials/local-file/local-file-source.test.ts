import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import {
  credentialSourceContract,
  request,
  type SourceFixture,
} from "../../../test/contracts/credential-source.ts";
import { LocalFileSource } from "./local-file-source.ts";

async function createFixture(): Promise<SourceFixture> {
  const directory = await mkdtemp(join(tmpdir(), "drover-credentials-"));
  const path = join(directory, "credentials.yaml");
  const secrets: Record<string, Record<string, Record<string, string>>> = {};
  const save = async () => await writeFile(path, JSON.stringify(secrets), { mode: 0o600 });
  return {
    source: new LocalFileSource({ path }),
    async put(tenant, name, key, value) {
      secrets[tenant] = { ...secrets[tenant], [name]: { [key]: value } };
      await save();
    },
    async remove(tenant, name) {
      delete secrets[tenant]?.[name];
      await save();
    },
    breakDown: async () => await chmod(path, 0o640),
    close: async () => await rm(directory, { recursive: true }),
  };
}

credentialSourceContract("LocalFileSource", createFixture);

describe("LocalFileSource", () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "drover-credentials-"));
  });
  afterAll(async () => await rm(directory, { recursive: true }));

  async function fileWith(text: string): Promise<LocalFileSource> {
    const path = join(directory, "credentials.yaml");
    await writeFile(path, text, { mode: 0o600 });
    return new LocalFileSource({ path });
  }

  it("reads YAML as people write it", async () => {
    const source = await fileWith("team-a:\n  docs-token:\n    token: CNRY-yaml-value\n");

    expect((await source.read(request())).value.reveal()).toBe("CNRY-yaml-value");
  });

  it("does not find anything while there is no file", async () => {
    const source = new LocalFileSource({ path: join(directory, "absent.yaml") });

    await expect(source.read(request())).rejects.toMatchObject({ code: "CREDENTIAL_NOT_FOUND" });
  });

  it.each(["just text CNRY-odd", "team-a: [CNRY-odd]", "a: b: c: CNRY-odd"])(
    "refuses a file that holds something else, without quoting it: %s",
    async (text) => {
      const source = await fileWith(text);

      await expect(source.read(request())).rejects.toMatchObject({
        code: "CREDENTIAL_UNAVAILABLE",
        message: expect.not.stringContaining("CNRY"),
      });
    },
  );

  it("names the fix when others may read the file", async () => {
    const source = await fileWith("team-a: {}");
    await chmod(join(directory, "credentials.yaml"), 0o644);

    await expect(source.read(request())).rejects.toThrow(/chmod 600/);
  });
});
