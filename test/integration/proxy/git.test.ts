import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, it } from "@jest/globals";
import { Cleanups } from "../../cleanups.ts";
import { GitRig } from "./git-rig.ts";

const TOKEN = "ghs_CNRYgitintegration0123456789";
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

describe("reading through the edge", () => {
  it.each(["0", "1", "2"])(
    "clone, fetch and pull work with protocol version %s",
    async (version) => {
      const rig = await GitRig.start(cleanups, { token: TOKEN });
      const folder = await rig.clone("app", "-c", `protocol.version=${version}`);
      await rig.host.git(["-C", rig.host.folder("team/app"), "branch", "later", "main"]);

      await rig.ok("-C", folder, "fetch", "--quiet", "origin");

      expect(await rig.ok("-C", folder, "rev-parse", "origin/later")).toBe(
        await rig.host.read("team/app", "rev-parse", "main"),
      );
      expect(await rig.ok("-C", folder, "remote", "get-url", "--all", "origin")).toContain(
        "/git/app",
      );
      expect(rig.host.received.map(({ headers }) => headers["git-protocol"])).toContain(
        version === "0" ? undefined : `version=${version}`,
      );
      expect(await rig.outcomes()).toMatchObject({ refused: 0, error: 0, upstream_error: 0 });
    },
  );

  it("a repository with many tags is fetched, which git asks for in packed requests", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });
    const folder = rig.host.folder("team/app");
    for (let n = 0; n < 80; n += 1) {
      const tree = await rig.host.read("team/app", "rev-parse", "main^{tree}");
      const commit = await rig.host.git(["-C", folder, "commit-tree", tree, "-m", `Release ${n}`]);
      await rig.host.git(["-C", folder, "tag", `v${n}`, commit.trim()]);
    }

    const clone = await rig.clone("app", "--no-tags");
    await rig.ok("-C", clone, "fetch", "--quiet", "--tags");

    expect((await rig.ok("-C", clone, "tag")).split("\n")).toHaveLength(80);
    expect(rig.host.received.some(({ headers }) => headers["content-encoding"] === "gzip")).toBe(
      true,
    );
  });

  it("partial and shallow clones work", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });

    const partial = await rig.clone("partial", "--filter=blob:none", "--no-checkout");
    await rig.ok("-C", partial, "checkout", "--quiet");
    const shallow = await rig.clone("shallow", "--depth=1");

    expect(await rig.ok("-C", partial, "show", "HEAD:README.md")).toContain("team/app");
    expect(await rig.ok("-C", shallow, "log", "--format=%s")).toBe("First commit");
  });
});

describe("pushing through the edge", () => {
  it("a push to an allowed branch lands", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });
    const folder = await rig.clone();
    await rig.commit(folder, "notes.md", "hello\n");

    await rig.ok("-C", folder, "push", "--quiet", "origin", "HEAD:refs/heads/agent/notes");

    expect(await rig.host.read("team/app", "show", "agent/notes:notes.md")).toBe("hello");
  });

  it.each([0.5, 2, 7, 64])("a pack of %d MiB lands with git's own settings", async (mebi) => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });
    const folder = await rig.clone("app", "-c", "core.compression=0");
    await rig.commit(folder, "big", randomBytes(mebi * 1024 * 1024));

    await rig.ok("-C", folder, "push", "--quiet", "origin", "HEAD:refs/heads/agent/big");

    expect(await rig.host.read("team/app", "rev-parse", "agent/big")).toBe(
      await rig.ok("-C", folder, "rev-parse", "HEAD"),
    );
  });

  it("a push to main is refused, and git prints why", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });
    const folder = await rig.clone();
    await rig.commit(folder, "notes.md", "hello\n");
    const before = await rig.host.read("team/app", "rev-parse", "main");

    const { code, stderr } = await rig.git(["-C", folder, "push", "origin", "main"]);

    expect(code).toBe(1);
    expect(stderr).toContain(
      "[remote rejected] main -> main (policy: this session may push to agent/** only)",
    );
    expect(await rig.host.read("team/app", "rev-parse", "main")).toBe(before);
    expect(rig.host.received.some(({ url }) => url.endsWith("/git-receive-pack"))).toBe(false);
  });
});
