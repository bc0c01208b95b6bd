/**
 * What each process may do in Redis (docs/design/session-log.md#redis-users,
 * docs/design/security.md#the-proxies). From here come
 * `deploy/redis/users.acl` and the users of the chart's Valkey; a test holds the lists against the
 * scripts, another runs the whole session log as these users.
 */
export const REDIS_PROCESSES = ["operator", "harness", "proxy", "edge"] as const;
/** A process with a Redis user of its own, and that user's name. The issuer is part of the operator. */
export type RedisProcess = (typeof REDIS_PROCESSES)[number];

interface Rights {
  /** As in a rule: `~` is read and write, `%R~` read, `%W~` write. */
  keys: readonly string[];
  channels?: readonly string[];
  commands: readonly string[];
}

/** Rights of a user; a command needs all of its keys and its verb in one of the sets. */
interface User extends Rights {
  more?: Rights;
}

/** What our connections say before anything else; INFO tells when a server has loaded its data. */
const CONNECTING = ["client|setname", "info", "select"];
/** Asks at the start whether the default user may replay what scripts wrote; it runs nothing. */
const PROBING = ["acl|dryrun"];
const SCRIPTING = ["eval", "evalsha", "time", "wait"];
/** Tables of a partition from which the operator works. */
const OPERATOR_TABLES = ["hands", "hbell", "state", "sbell"].map(
  (table) => `~drover:{*:q:${table}`,
);

const USERS: Readonly<Record<RedisProcess, User>> = {
  /**
   * Writes logs, and reads of them nothing but their meta: no conversation, in a script neither. As the
   * issuer it appends to the audit's checkpoints, and cannot delete them.
   */
  operator: {
    keys: ["~drover:{*", "~drover:s:{*", "~drover:cfg:*", "~drover:px:bind:*"],
    channels: ["&drover:{*"],
    commands: [
      ...CONNECTING,
      ...PROBING,
      ...SCRIPTING,
      "config|get",
      "del",
      "exists",
      "hdel",
      "hincrby",
      "hset",
      "ltrim",
      "rpush",
      "sadd",
      "set",
      "spublish",
      "srem",
      "xadd",
      "zadd",
      "zrem",
    ],
    more: {
      keys: [
        ...OPERATOR_TABLES,
        "%R~drover:{*:m",
        "%R~drover:{*:k",
        "%R~drover:s:{*",
        "%R~drover:cfg:*",
        "%R~drover:px:bind:*",
        "%R~drover:px:cred:*",
        "%W~drover:px:audit",
      ],
      commands: ["blpop", "get", "hget", "hgetall", "hmget", "smembers", "xadd"],
    },
  },
  /** Everything in a log but its removal; a snapshot, which says what a session may, only to read. */
  harness: {
    keys: ["~drover:{*", "%R~drover:s:{*"],
    channels: ["&drover:{*"],
    commands: [
      ...CONNECTING,
      ...PROBING,
      ...SCRIPTING,
      "blpop",
      "get",
      "hdel",
      "hget",
      "hincrby",
      "hlen",
      "hmget",
      "hscan",
      "hset",
      "ltrim",
      "ping",
      "rpush",
      "spublish",
      "ssubscribe",
      "sunsubscribe",
      "xadd",
      "xrange",
      "xrevrange",
      "zadd",
      "zrange",
      "zrem",
    ],
  },
  /** Reads leases and snapshots; writes what it found of credentials and tools. */
  proxy: {
    keys: ["%R~drover:{*:m", "%R~drover:s:{*", "%W~drover:px:cred:*", "~drover:px:pin:*"],
    commands: [...CONNECTING, "expire", "get", "hmget", "hset", "set"],
  },
  /** As the proxy, without tools, and it reads which sandbox is bound to which session. */
  edge: {
    keys: ["%R~drover:{*:m", "%R~drover:s:{*", "%R~drover:px:bind:*", "%W~drover:px:cred:*"],
    commands: [...CONNECTING, "expire", "get", "hmget", "hset"],
  },
};

/** Names of the commands a process may send or call in a script, `config|get` for a part of one. */
export function commandsOf(process: RedisProcess): readonly string[] {
  const { commands, more } = USERS[process];
  return [...new Set([...commands, ...(more?.commands ?? [])])];
}

/**
 * The line of an ACL file for this process. `password` is `>` and the password, or `#` and its
 * SHA-256 in hex. Whatever the user was before, it is this afterwards.
 */
export function userLine(process: RedisProcess, password: string): string {
  const { more, ...rights } = USERS[process];
  const selector = more === undefined ? [] : [`(${ruleOf(more)})`];
  return ["user", process, "reset", "on", password, ruleOf(rights), ...selector].join(" ");
}

/** The ACL file with words in capitals where passwords belong: `>HARNESS_PASSWORD`. */
export function usersFile(): string {
  const lines = REDIS_PROCESSES.map((name) => userLine(name, `>${name.toUpperCase()}_PASSWORD`));
  return `${lines.join("\n")}\n`;
}

function ruleOf({ keys, channels = [], commands }: Rights): string {
  return [...keys, ...channels, ...commands.map((name) => `+${name}`)].join(" ");
}
