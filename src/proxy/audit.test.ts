import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import type { AuditCheckpoint } from "../protocol/proxy-ports.ts";
import { createLogger } from "../runtime/logger.ts";
import { Registry } from "../runtime/metrics.ts";
import { AuditLog, type ServedUse } from "./audit.ts";
import { auditRecord, hashOf } from "./audit-record.ts";
import {
  AuditVerification,
  type AuditVerificationOptions,
  type KnownCheckpoint,
} from "./audit-verify.ts";
import { createProxyMetrics } from "./metrics.ts";

const use: ServedUse = {
  role: "mcp",
  tenant: "team-a",
  session: "sesn_1",
  method: "tools/call",
  tool: "echo",
  allowedBy: "always_allow",
  bytesIn: 10,
  bytesOut: 20,
  ms: 1.4,
  redactions: 0,
};

function auditLog(checkpointsFail = false, podUid = "pod-1") {
  const clock = new FakeClock();
  const lines: string[] = [];
  const kept: AuditCheckpoint[] = [];
  const logLines: { level: string; msg: string }[] = [];
  const state = { sinkFails: false, checkpointsFail };
  const registry = new Registry();
  const log = new AuditLog({
    sink: {
      write: (line) => {
        if (state.sinkFails) throw new Error("ENOSPC");
        lines.push(line);
      },
    },
    checkpoints: {
      keepCheckpoint: async (checkpoint) => {
        if (state.checkpointsFail) throw new Error("no Redis");
        kept.push(checkpoint);
      },
    },
    process: "proxy",
    podUid,
    clock,
    logger: createLogger({
      level: "info",
      process: "proxy",
      destination: { write: (line) => logLines.push(JSON.parse(line)) },
    }),
    metrics: createProxyMetrics(registry),
  });
  const record = (times: number) => {
    for (let each = 0; each < times; each += 1) log.record({ ...use, ms: each });
  };
  return { log, lines, kept, logLines, clock, state, registry, record };
}

function problemsOf(lines: readonly string[], checkpoints: readonly KnownCheckpoint[] = []) {
  return reportOf(lines, checkpoints).problems;
}

function reportOf(
  lines: readonly string[],
  checkpoints: readonly KnownCheckpoint[],
  options?: AuditVerificationOptions,
) {
  const verification = new AuditVerification(checkpoints, options);
  for (const line of lines) verification.add(line);
  return verification.report();
}

describe("the audit log", () => {
  it("is a chain in which nothing is wrong, between other lines of the log", () => {
    const { lines, record } = auditLog();
    record(3);
    const verification = new AuditVerification([]);
    for (const line of ['{"level":"info","msg":"x"}', "not JSON", ...lines]) verification.add(line);

    const { records, heads, problems } = verification.report();
    expect({ records, problems }).toEqual({ records: 3, problems: [] });
    expect(heads).toEqual([expect.objectContaining({ podUid: "pod-1", seq: 3 })]);
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({
      audit: true,
      seq: 1,
      prevHash: "",
      decision: "allow",
      rule: "always_allow",
      namespace: "team-a",
      sessionId: "sesn_1",
      time: "2023-11-14T22:13:20.000Z",
    });
  });

  it("names the error that refused a use, and the one by which an allowed use failed", () => {
    const { log, lines } = auditLog();
    const { allowedBy, ...refused } = use;
    log.record({ ...refused, error: "FORBIDDEN" });
    log.record({ ...use, error: "UNAVAILABLE" });

    const [first, second] = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(first).toMatchObject({ decision: "deny", rule: "FORBIDDEN" });
    expect(first).not.toHaveProperty("code");
    expect(second).toMatchObject({ decision: "allow", rule: allowedBy, code: "UNAVAILABLE" });
  });

  it.each<[string, (lines: string[]) => string[], RegExp]>([
    ["a record was dropped", ([a, , c]) => [a ?? "", c ?? ""], /record 3 follows 1/],
    ["the first was dropped", ([, b, c]) => [b ?? "", c ?? ""], /record 2 follows 0/],
    ["two changed places", ([a, b, c]) => [a ?? "", c ?? "", b ?? ""], /record 2 stands after/],
    ["one is there twice", ([a, b, c]) => [a ?? "", b ?? "", b ?? "", c ?? ""], /stands after/],
    [
      "a field was edited",
      (all) => all.map((l) => l.replace('"durationMs":1,', '"durationMs":9,')),
      /2 was edited/,
    ],
    [
      "a field was added",
      (all) => all.map((l) => l.replace('"durationMs":1,', '"durationMs":1,"x":1,')),
      /no audit record/,
    ],
    [
      "a field was taken out",
      (all) => all.map((l) => l.replace('"tool":"echo",', "")),
      /was edited/,
    ],
    [
      "a line was cut",
      (all) => all.map((l, i) => (i === 1 ? l.slice(0, 90) : l)),
      /no audit record/,
    ],
  ])("shows that %s", (_name, change, problem) => {
    const { lines, record } = auditLog();
    record(3);

    expect(problemsOf(change(lines)).join("\n")).toMatch(problem);
  });

  it("shows that a record was edited although its own hash was made anew", () => {
    const { lines, record } = auditLog();
    record(3);
    const { hash, ...rest } = auditRecord.parse(JSON.parse(lines[1] ?? ""));
    const edited = { ...rest, durationMs: 9 };
    lines[1] = JSON.stringify({ ...edited, hash: hashOf(edited) });

    expect(hash).not.toBe(hashOf(edited));
    expect(problemsOf(lines)).toEqual([expect.stringMatching(/record 3 does not fit/)]);
  });

  it("shows a cut end, a forged record and a forged chain by its checkpoints", async () => {
    const { log, lines, kept, clock, record } = auditLog();
    const stop = new AbortController();
    const running = log.run(stop.signal);
    record(2);
    await clock.advance(5000);
    record(1);
    stop.abort();
    await running;

    expect(kept.map(({ seq }) => seq)).toEqual([2, 3]);
    expect(problemsOf(lines, kept)).toEqual([]);
    expect(problemsOf(lines.slice(0, 2), kept)).toEqual([
      expect.stringMatching(/record 3 .* missing/),
    ]);
    expect(problemsOf(lines.slice(2), kept)).toEqual([]);
    const other = kept.map((checkpoint) => ({ ...checkpoint, hash: "0".repeat(64) }));
    expect(problemsOf(lines, other).join()).toContain("differs from its checkpoint");
  });

  it("shows a chain that somebody made up beside one with checkpoints", async () => {
    const { log, lines, kept, clock, record } = auditLog();
    const stop = new AbortController();
    const running = log.run(stop.signal);
    record(2);
    await clock.advance(5000);
    stop.abort();
    await running;
    const { hash: _hash, ...rest } = auditRecord.parse(JSON.parse(lines[0] ?? ""));
    const made = { ...rest, chain: "made-up" };
    const forged = JSON.stringify({ ...made, hash: hashOf(made) });

    expect(problemsOf([...lines, forged])).toEqual([]);
    expect(problemsOf(lines, kept)).toEqual([]);
    expect(problemsOf([...lines, forged], kept)).toEqual([
      expect.stringMatching(/chain made-up of pod pod-1 has no checkpoint/),
    ]);
  });

  it("goes on while the issuer is away, then has all records in one checkpoint", async () => {
    const { log, lines, kept, logLines, clock, state, record } = auditLog(true);
    const stop = new AbortController();
    const running = log.run(stop.signal);
    record(1);
    await clock.advance(5000);
    log.check({ hasEffect: true });
    record(2);
    await clock.advance(10_000);
    state.checkpointsFail = false;
    await clock.advance(5000);
    stop.abort();
    await running;

    expect(kept.map(({ seq }) => seq)).toEqual([3]);
    expect(problemsOf(lines, kept)).toEqual([]);
    expect(logLines.map(({ level, msg }) => [level, msg])).toEqual([
      ["warn", "audit checkpoints not kept; they are tried again"],
      ["info", "audit checkpoints kept again"],
    ]);
  });

  describe("with signed checkpoints", () => {
    async function signedLog(podUid: string, records: number) {
      const audit = auditLog(false, podUid);
      audit.record(records);
      const stop = new AbortController();
      const running = audit.log.run(stop.signal);
      stop.abort();
      await running;
      const signed = audit.kept.map((checkpoint) => ({ ...checkpoint, podUid }));
      return { ...audit, signed };
    }

    it("shows a chain whose checkpoints another pod has got", async () => {
      const { lines, signed } = await signedLog("pod-1", 2);

      expect(problemsOf(lines, signed)).toEqual([]);
      const stolen = signed.map((checkpoint) => ({ ...checkpoint, podUid: "pod-2" }));
      expect(problemsOf(lines, stolen)).toEqual([
        expect.stringMatching(/of pod pod-2: record 2 of a checkpoint is missing, and all before/),
        expect.stringMatching(/of pod pod-1 has no checkpoint/),
      ]);
    });

    it("shows that the log of a whole pod is missing, unless it was asked for others", async () => {
      const [one, other] = [await signedLog("pod-1", 2), await signedLog("pod-2", 3)];
      const signed = [...one.signed, ...other.signed];

      expect(problemsOf([...one.lines, ...other.lines], signed)).toEqual([]);
      expect(problemsOf(one.lines, signed)).toEqual([
        expect.stringMatching(/of pod pod-2: record 3 of a checkpoint is missing, and all before/),
      ]);
      const pods = ["pod-1"];
      expect(reportOf(one.lines, signed, { pods }).problems).toEqual([]);
      expect(reportOf([...one.lines, ...other.lines], signed, { pods }).problems.join()).toMatch(
        /of pod pod-2 is of another pod than was asked for/,
      );
    });

    it("shows records behind the last checkpoint, which for a minute may just wait for theirs", async () => {
      const { lines, signed, clock, record } = await signedLog("pod-1", 2);
      record(2);
      const at = (now: number) => reportOf(lines, signed, { now });

      const fresh = at(clock.now() + 5000);
      const late = at(clock.now() + 61_000);

      expect(fresh.problems).toEqual([]);
      expect(fresh.notes).toEqual([expect.stringMatching(/records 3 to 4 have no checkpoint yet/)]);
      expect(late.problems).toEqual([expect.stringMatching(/records 3 to 4 have no checkpoint: /)]);
      expect(at(clock.now() - 61_000).problems).toHaveLength(1);
    });

    it("shows a cut log once for a chain, with the last record that is missing", async () => {
      const { log, lines, kept, clock, record } = auditLog();
      const stop = new AbortController();
      const running = log.run(stop.signal);
      for (let each = 0; each < 3; each += 1) {
        record(1);
        await clock.advance(5000);
      }
      stop.abort();
      await running;
      const signed = kept.map((checkpoint) => ({ ...checkpoint, podUid: "pod-1" }));

      expect(problemsOf(lines.slice(0, 1), signed)).toEqual([
        expect.stringMatching(/record 3 of a checkpoint is missing: the log ends at 1/),
      ]);
    });
  });

  it("refuses effects while it cannot be written, and has lost nothing when it can", () => {
    const { log, lines, logLines, state, record } = auditLog();
    record(1);
    state.sinkFails = true;
    record(2);

    expect(() => log.check({ hasEffect: true })).toThrow("the audit log cannot be written");
    log.check({ hasEffect: false });
    state.sinkFails = false;
    log.check({ hasEffect: true });
    expect(lines).toHaveLength(3);
    expect(problemsOf(lines)).toEqual([]);
    expect(logLines.map(({ level, msg }) => [level, msg])).toEqual([
      ["error", "audit log not written"],
      ["info", "audit log written again"],
    ]);
  });

  it("refuses everything once too much waits, and counts what it could not record", async () => {
    const { log, lines, state, registry, record } = auditLog();
    state.sinkFails = true;
    record(1000);
    expect(() => log.check({ hasEffect: false })).toThrow("the audit log cannot be written");
    record(1);
    state.sinkFails = false;
    log.check({ hasEffect: false });

    expect(lines).toHaveLength(1000);
    expect(problemsOf(lines)).toEqual([]);
    expect(await registry.metrics()).toContain('audit_records_total{outcome="lost"} 1');
  });
});
