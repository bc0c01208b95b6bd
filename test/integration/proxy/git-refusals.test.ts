import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, describe, expect, it } from "@jest/globals";
import { AUDIENCES, generateSigningKey, signToken } from "../../../src/protocol/tokens.ts";
import { encodePkt, FLUSH } from "../../../src/proxy/roles/git/pkt-line.ts";
import { Cleanups } from "../../cleanups.ts";
import { echoCredential } from "../../servers/git-host.ts";
import { GitRig } from "./git-rig.ts";

const TOKEN = "ghs_CNRYgitrefusals0123456789abcd";
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

/** A clone with one commit that is not on the host. */
async function withCommit(options: Parameters<typeof GitRig.start>[1] = {}) {
  const rig = await GitRig.start(cleanups, { token: TOKEN, ...options });
  const folder = await rig.clone();
  await rig.commit(folder, "notes.md", "hello\n");
  const push = async (...args: string[]) =>
    await rig.git(["-C", folder, "push", "origin", ...args]);
  const heads = async () =>
    await rig.host.read("team/app", "for-each-ref", "--format=%(refname) %(objectname)");
  return { rig, folder, push, heads, before: await heads() };
}

describe("what the policy refuses", () => {
  it.each([
    [
      "another branch",
      ["HEAD:main"],
      "HEAD -> main (policy: this session may push to agent/** only)",
    ],
    ["a tag", ["HEAD:refs/tags/v1"], "HEAD -> v1 (policy: this session may not push tags)"],
    [
      "a ref that is no branch",
      ["HEAD:refs/for/main"],
      "(policy: this session may push to branches only)",
    ],
    [
      "a branch among allowed ones",
      ["HEAD:agent/x", "HEAD:main"],
      "HEAD -> agent/x (policy: not pushed, because another ref of this push is refused)",
    ],
    [
      "an atomic push",
      ["--atomic", "HEAD:agent/x", "HEAD:main"],
      "HEAD -> main (policy: this session may push to agent/** only)",
    ],
    [
      "push options",
      ["-o", "merge_request.create", "HEAD:agent/x"],
      "(policy: push options (-o) are not passed on)",
    ],
    [
      "a push that is forced",
      ["--force", "HEAD:main"],
      "HEAD -> main (policy: this session may push to agent/** only)",
    ],
  ])("%s: git prints the reason, and nothing lands", async (_what, args, words) => {
    const { rig, push, heads, before } = await withCommit();

    const { code, stderr } = await push(...args);

    expect(code).toBe(1);
    expect(stderr).toContain(words);
    expect(await heads()).toBe(before);
    expect(rig.host.received.some(({ url }) => url.endsWith("/git-receive-pack"))).toBe(false);
    expect(rig.uses.at(-1)).toMatchObject({ role: "git", serverRef: "app", error: "FORBIDDEN" });
    expect(rig.uses.at(-1)?.allowedBy).toBeUndefined();
    expect(rig.uses.at(-1)?.refs?.[0]).toMatch(/^refs\/\S+ [0-9a-f]{40}$/);
  });

  it("an allowed branch may be moved, but not deleted", async () => {
    const { push, heads } = await withCommit();
    expect((await push("HEAD:agent/x")).code).toBe(0);
    const with1 = await heads();

    const { code, stderr } = await push("--delete", "agent/x");

    expect(code).toBe(1);
    expect(stderr).toContain("(policy: this session may not delete branches)");
    expect(await heads()).toBe(with1);
  });

  it("a repository without pushBranches says so before anything is packed", async () => {
    const { rig, push } = await withCommit({ pushBranches: [] });

    const { code, stderr } = await push("HEAD:agent/x");

    expect(code).toBe(128);
    expect(stderr).toContain(
      'remote error: policy: this session may not push to repository "app"; its pushBranches name no branch',
    );
    expect(rig.host.received.some(({ url }) => url.includes("git-receive-pack"))).toBe(false);
  });

  it("a denied push of a large pack still shows its reason", async () => {
    const { rig, folder, push, heads, before } = await withCommit();
    await rig.commit(folder, "big", randomBytes(7 * 1024 * 1024));

    const { code, stderr } = await push("HEAD:main");

    expect(code).toBe(1);
    expect(stderr).toContain("HEAD -> main (policy: this session may push to agent/** only)");
    expect(await heads()).toBe(before);
  });

  it("a pack above the cap is refused with the cap, and the branch is unchanged", async () => {
    const { rig, folder, push, heads, before } = await withCommit({
      sizes: { push: 2 * 1024 * 1024 },
    });
    await rig.commit(folder, "big", randomBytes(3 * 1024 * 1024));

    const { code, stderr } = await push("HEAD:agent/big");

    expect(code).toBe(1);
    expect(stderr).toContain("the push is larger than 2 MiB, the most that is passed on");
    expect(await heads()).toBe(before);
    expect(await rig.outcomes()).toMatchObject({ refused: 1 });
  });

  it("the host's own refusal reaches git unchanged", async () => {
    const { push } = await withCommit({
      pushBranches: ["guarded"],
      protectedBranches: ["guarded"],
    });

    const { code, stderr } = await push("HEAD:guarded");

    expect(code).toBe(1);
    expect(stderr).toContain(
      "remote: error: GH006: Protected branch update failed for refs/heads/guarded.",
    );
    expect(stderr).toContain("HEAD -> guarded (pre-receive hook declined)");
  });

  it("commands are read through gzip, and a push that cannot be read says what failed", async () => {
    const { rig, heads, before } = await withCommit();
    const id = await rig.host.read("team/app", "rev-parse", "main");
    const type = { "content-type": "application/x-git-receive-pack-request" };
    const push = Buffer.concat([
      encodePkt(`${id} ${"0".repeat(40)} refs/heads/main\0 report-status delete-refs`),
      FLUSH,
    ]);
    const send = async (body: Buffer, headers: Record<string, string> = {}) => {
      const answer = await rig.fetch(
        "/git/app/git-receive-pack",
        { method: "POST", body: new Uint8Array(body) },
        { ...type, ...headers },
      );
      return await answer.text();
    };

    expect(await send(gzipSync(push), { "content-encoding": "gzip" })).toContain(
      "ng refs/heads/main policy: this session may not delete branches",
    );
    expect(await send(push, { "content-encoding": "gzip" })).toContain("the request is not gzip");
    expect(await send(push, { "content-encoding": "br" })).toContain(
      "content-encoding must be gzip",
    );
    expect(await send(Buffer.from("hello, host"))).toContain("not a packet of git");
    expect(await send(push, { "content-type": "text/plain" })).toContain("content-type must be");
    expect(await heads()).toBe(before);
  });
});

describe("who may ask", () => {
  const routes = ["/git/app/info/refs?service=git-upload-pack", "/git/app/git-receive-pack"];

  it("a sandbox without a valid token of its own is told so, and no password is asked for", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });
    const other = await generateSigningKey("key-1");
    const times = { nowMs: Date.now(), lifeSeconds: 60 };
    const claims = { sub: "x", ten: "team-a", hand: "h", gen: 1, sbx: "s", ip: "127.0.0.1" };
    const tokens = {
      none: undefined,
      forged: await signToken(other, AUDIENCES.sandbox, claims, times),
      "for another audience": await signToken(rig.key, AUDIENCES.session, claims, times),
      expired: await signToken(rig.key, AUDIENCES.sandbox, claims, {
        nowMs: 1000,
        lifeSeconds: 60,
      }),
      "of another sandbox": await rig.sandboxToken({ sbx: "sandbox-2" }),
      "of an earlier generation": await rig.sandboxToken({ gen: 2 }),
      "of another session": await rig.sandboxToken({ sub: "sesn_other" }),
      "of another tenant": await rig.sandboxToken({ ten: "team-b" }),
      "of another address": await rig.sandboxToken({ ip: "127.0.0.2" }),
    };

    for (const [what, token] of Object.entries(tokens)) {
      for (const route of routes) {
        const answer = await fetch(`${rig.url}${route}`, {
          method: route.includes("?") ? "GET" : "POST",
          headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        });
        expect([what, answer.status]).toEqual([what, 403]);
        expect(answer.headers.get("www-authenticate")).toBeNull();
        expect(await answer.text()).toMatch(/^.+ \((UNAUTHENTICATED|FORBIDDEN)\)\n$/);
      }
    }
    expect(rig.host.received).toEqual([]);
    expect(rig.reports).toEqual([]);
    // They could push what counts out of a log that rotates.
    expect(rig.uses).toEqual([]);
    expect(rig.logLines.filter((line) => line.includes('"level":"warn"'))).toEqual([]);
    expect((await rig.outcomes())["unauthenticated"]).toBeGreaterThan(4);
  });

  it("an address from which nothing valid comes is not listened to for long", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });
    const status = async () => (await fetch(`${rig.url}${routes[0]}`)).status;

    const seen: number[] = [];
    // Each second that the requests take, one more is let in.
    while (seen.at(-1) !== 429 && seen.length < 200) seen.push(await status());

    expect(seen.length).toBeGreaterThan(60);
    expect(new Set(seen)).toEqual(new Set([403, 429]));
    rig.ahead += 1001;
    expect(await status()).toBe(403);
    expect(rig.uses).toEqual([]);
  });

  it("what is no HTTP is counted", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });
    const socket = connect(rig.port, "127.0.0.1").resume();
    socket.write("EHLO edge\r\n\r\n");
    await once(socket, "close");

    expect(await rig.registry.metrics()).toContain(
      'drover_proxy_unserved_requests_total{reason="not_http"} 1',
    );
  });

  it("git prints the reason, and the binding's end is the end", async () => {
    const { rig, folder, push, heads, before } = await withCommit();
    rig.bindings.clear();

    const pushed = await push("HEAD:agent/x");
    const fetched = await rig.git(["-C", folder, "fetch"]);

    for (const { code, stderr } of [pushed, fetched]) {
      expect(code).toBe(128);
      expect(stderr).toContain("is not bound to session");
      expect(stderr).not.toContain("Username");
    }
    expect(await heads()).toBe(before);
  });

  it("a credential that the sandbox brings is refused, and the host hears nothing", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });
    const path = "/git/app/info/refs?service=git-upload-pack";
    const basic = `Basic ${Buffer.from("x-access-token:own-token").toString("base64")}`;
    const attempts: [string, Record<string, string>][] = [
      [path, { authorization: basic }],
      [path, { authorization: "Bearer ghp_ownownownown" }],
      [path, { authorization: "token ghp_ownownownown" }],
      [path, { "proxy-authorization": basic }],
      [path, { cookie: "session=own" }],
      [path, { "x-api-key": "own" }],
      [path, { "private-token": "own" }],
      [path, { "job-token": "own" }],
    ];

    for (const [asked, headers] of attempts) {
      const answer = await rig.fetch(asked, {}, headers);
      expect([JSON.stringify(headers), answer.status]).toEqual([JSON.stringify(headers), 403]);
      expect(await answer.text()).toContain("(FOREIGN_CREDENTIAL)");
    }
    // No route has a parameter for one.
    expect((await rig.fetch(`${path}&private_token=own`)).status).toBe(404);
    expect(rig.host.received).toEqual([]);
  });
});

describe("what is not served", () => {
  it("a repository whose URL begins with that of another is not taken for a third", async () => {
    const rig = await GitRig.start(cleanups, {
      repositories: (host) => [
        { name: "app", url: host.repositoryUrl("team/app"), pushBranches: [] },
        { name: "app-x", url: host.repositoryUrl("team/other"), pushBranches: [] },
      ],
    });
    await rig.host.addRepository("team/other");

    const own = await rig.git(["ls-remote", rig.repositoryUrl]);
    const seen = rig.host.received.length;
    const neighbour = await rig.git(["ls-remote", rig.host.repositoryUrl("team/app-x")]);

    expect(own.code).toBe(0);
    expect(neighbour.stderr).toContain("there is no such route");
    expect(rig.host.received).toHaveLength(seen);
  });

  it("git prints why a repository that is not the session's, and the dumb protocol, are refused", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });

    const other = await rig.git(["ls-remote", `${rig.url}/git/other`]);
    const dumb = await rig.git(["ls-remote", rig.repositoryUrl], { GIT_SMART_HTTP: "0" });

    expect(other.stderr).toContain('remote: the session has no repository "other" (NOT_FOUND)');
    expect(dumb.stderr).toContain("the dumb protocol is not served");
    expect(rig.host.received).toEqual([]);
  });

  it("git-lfs gets its refusal in the form it prints", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });

    const answer = await rig.fetch("/git/app/info/lfs/objects/batch", {
      method: "POST",
      body: "{}",
    });

    expect(answer.status).toBe(404);
    expect(answer.headers.get("content-type")).toBe("application/vnd.git-lfs+json");
    expect(await answer.json()).toEqual({
      message: expect.stringContaining("Git LFS is not served"),
    });
  });
});

describe("when the credential does not do", () => {
  const listed = (rig: GitRig) => rig.git(["ls-remote", rig.repositoryUrl]);

  it("a rotated value is used, and a revoked one is gone, within five seconds", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });
    expect((await listed(rig)).code).toBe(0);
    rig.host.rotate("team/app", `${TOKEN}-new`);
    rig.secrets.set("code/token", `${TOKEN}-new`);
    rig.ahead += 5001;
    expect((await listed(rig)).code).toBe(0);
    rig.secrets.delete("code/token");
    rig.ahead += 5001;

    const { code, stderr } = await listed(rig);

    expect(code).toBe(128);
    expect(stderr).toContain("fatal: remote error: no such secret");
    expect(rig.reports.at(-1)).toMatchObject({
      entry: "app",
      failure: { code: "CREDENTIAL_NOT_FOUND" },
    });
  });

  it("a value the host does not take is told by name, and what the host echoes is masked", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });
    const refused = 'does not accept credential "code/app" (';
    for (const [status, words] of [
      [401, refused],
      [403, refused],
      [404, refused],
      [500, "refuses ("],
    ] as const) {
      rig.host.intercept = echoCredential(status);

      const { stderr } = await listed(rig);

      expect(stderr).toContain('fatal: remote error: repository "app" on 127.0.0.1');
      expect(stderr).toContain(`${words}status ${status}: not accepted:`);
      expect(stderr).not.toContain(TOKEN);
      expect(stderr).not.toContain(Buffer.from(`x-access-token:${TOKEN}`).toString("base64"));
    }
    expect(rig.logLines.join("")).not.toContain(TOKEN);
    expect(rig.uses.at(-1)?.redactions).toBeGreaterThan(0);
  });

  it("a repository that wants a token, and has an entry for its neighbour only, names the neighbour", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN, entries: [] });
    const near = await GitRig.start(cleanups, {
      token: TOKEN,
      entries: [
        {
          name: "near",
          repositoryUrl: `http://127.0.0.1:1/team/app`,
          secretRef: { name: "code", key: "token" },
          header: "Authorization",
          scheme: "Bearer",
        },
      ],
    });

    expect((await listed(rig)).stderr).toContain("no entry of the session's vaults is for it");
    const { stderr } = await listed(near);
    expect(stderr).toContain(
      'no entry of the session\'s vaults is for it; nearly: entry "near" of vault "code": the port differs',
    );
    expect(near.host.received.every(({ headers }) => headers.authorization === undefined)).toBe(
      true,
    );
  });

  it("a public repository is read without a credential", async () => {
    const rig = await GitRig.start(cleanups);

    expect((await listed(rig)).code).toBe(0);
    expect(rig.host.received[0]?.headers.authorization).toBeUndefined();
  });
});

describe("what reaches the git host", () => {
  it("has the headers of the edge and nothing of the sandbox's", async () => {
    const rig = await GitRig.start(cleanups, { token: TOKEN });

    await rig.fetch(
      "/git/app/info/refs?service=git-upload-pack",
      {},
      {
        "git-protocol": "version=2:evil=1",
        "x-forwarded-for": "1.2.3.4",
        forwarded: "for=1.2.3.4",
        "user-agent": "sandbox",
        accept: "text/html",
        "x-evil": "1",
      },
    );
    await rig.ok("ls-remote", rig.repositoryUrl);

    const [odd, plain] = rig.host.received.map(({ headers }) => headers);
    const basic = `Basic ${Buffer.from(`x-access-token:${TOKEN}`).toString("base64")}`;
    expect(odd).toEqual({
      accept: "*/*",
      authorization: basic,
      connection: "keep-alive",
      host: rig.host.authority,
      "user-agent": expect.stringMatching(/^git\/2\.0 \(drover /),
    });
    expect(plain).toEqual({ ...odd, "git-protocol": "version=2" });
  });

  it("words of a hook that repeat the token come back without it", async () => {
    const { rig, push } = await withCommit();
    const hook = join(rig.host.folder("team/app"), "hooks", "pre-receive");
    await writeFile(
      hook,
      `#!/bin/sh\nprintf 'x%.0s' $(seq 120) >&2\necho " ${TOKEN}" >&2\nexit 1\n`,
      {
        mode: 0o755,
      },
    );

    const { code, stderr } = await push("HEAD:agent/x");

    expect(code).toBe(1);
    expect(stderr).toContain(`xxx ${"*".repeat(TOKEN.length)}`);
    expect(stderr).not.toContain(TOKEN);
  });
});
