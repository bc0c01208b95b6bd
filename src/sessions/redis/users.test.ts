import { describe, expect, it } from "@jest/globals";
import { loadScripts, SCRIPT_NAMES, type ScriptName } from "../scripts.ts";
import { REPLAYED } from "./probe.ts";
import { commandsOf, REDIS_PROCESSES, type RedisProcess, userLine, usersFile } from "./users.ts";

const words = (text: string): string[] => text.trim().split(/\s+/);
const CONNECTING = words("client|setname info select");

/** What each process does: the scripts it runs, and the commands it sends by themselves. */
const WORK: Record<RedisProcess, { scripts: ScriptName[]; commands: string[] }> = {
  operator: {
    scripts: ["create", "append", "wake", "delete", "ack-state", "register-pool"],
    commands: words(`
      acl|dryrun eval evalsha wait config|get spublish
      blpop hmget hgetall get hdel set del exists sadd srem smembers xadd
    `),
  },
  harness: {
    scripts: ["append", "append-leased", "barrier", "claim", "release", "renew", "wake"],
    commands: words(`
      acl|dryrun eval evalsha wait spublish ping ssubscribe sunsubscribe
      blpop hmget get xrange xrevrange zadd zrange zrem
    `),
  },
  proxy: { scripts: [], commands: words("hmget get set hset expire") },
  edge: { scripts: [], commands: words("hmget get hset expire") },
};

/** Redis commands a script calls, those of the functions it uses included. */
function commandsIn(script: ScriptName): Set<string> {
  const [, ...parts] = loadScripts()[script].lua.split(/^local function /m);
  const last = parts.pop() ?? "";
  // The prelude's last function ends where the script's own text begins.
  const [lastFunction = "", own = ""] = split(last, /\nend\n/);
  const functions = new Map(
    [...parts, lastFunction].map((text) => [/^\w+/.exec(text)?.[0] ?? "", text]),
  );
  const found = new Set<string>();
  const seen = new Set<string>();
  const visit = (text: string) => {
    for (const [, name = ""] of text.matchAll(/redis\.call\('(\w+)'/g)) {
      found.add(name.toLowerCase());
    }
    for (const [name, body] of functions) {
      if (seen.has(name) || !new RegExp(`\\b${name}\\(`).test(text)) continue;
      seen.add(name);
      visit(body.slice(name.length));
    }
  };
  visit(own);
  return found;
}

function split(text: string, mark: RegExp): string[] {
  const at = mark.exec(text);
  return at === null ? [text] : [text.slice(0, at.index), text.slice(at.index + at[0].length)];
}

/** Of the commands in scripts, those that leave nothing in the server's append-only file. */
const NOT_WRITTEN = words("hget hgetall hlen hmget hscan time xrange zrange spublish");

it("the probe asks about every command that stands in the append-only file", () => {
  const inScripts = new Set(SCRIPT_NAMES.flatMap((name) => [...commandsIn(name)]));
  const written = [...inScripts].filter((name) => !NOT_WRITTEN.includes(name));

  expect(new Set(REPLAYED.map(([name]) => name))).toEqual(new Set(written));
});

describe("the commands of a user", () => {
  it("the scripts are read as they are", () => {
    expect(commandsIn("wake")).toEqual(new Set(["hmget", "time", "zadd", "rpush", "ltrim"]));
    expect(commandsIn("barrier")).toEqual(new Set(["hmget", "xrange", "hincrby"]));
  });

  it.each(REDIS_PROCESSES)("of the %s are those of its work, and no more", (process) => {
    const { scripts, commands } = WORK[process];
    const needed = [
      ...CONNECTING,
      ...commands,
      ...scripts.flatMap((name) => [...commandsIn(name)]),
    ];

    expect(new Set(commandsOf(process))).toEqual(new Set(needed));
  });

  it.each(REDIS_PROCESSES)("of the %s are given one by one, never a category", (process) => {
    expect(commandsOf(process).filter((name) => !/^[a-z]+(\|[a-z]+)?$/.test(name))).toEqual([]);
  });

  it("none lists keys, empties, configures, copies or looks into the server", () => {
    const never =
      /^(keys|scan|randomkey|flush|config(?!\|get)|debug|acl(?!\|dryrun)|dump|restore|migrate|copy|rename|move|object|sort|monitor|shutdown|replicaof|slaveof|module|function|fcall|script|subscribe|psubscribe|client(?!\|setname))/;

    expect(REDIS_PROCESSES.flatMap(commandsOf).filter((name) => never.test(name))).toEqual([]);
  });

  it("the operator has none that reads a stream", () => {
    expect(commandsOf("operator").filter((name) => name.startsWith("x"))).toEqual(["xadd"]);
  });
});

it("a line begins anew, so that an older right of the user is gone", () => {
  expect(userLine("edge", "#00")).toBe(
    "user edge reset on #00 %R~drover:{*:m %R~drover:s:{* %R~drover:px:bind:* %W~drover:px:cred:* +client|setname +info +select +expire +get +hmget +hset",
  );
  expect(usersFile().match(/^user \w+ reset on >[A-Z]+_PASSWORD /gm)).toHaveLength(4);
});
