import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { type EntryReport, entryReport } from "../protocol/session-ports.ts";
import { CredentialReports } from "./credential-reports.ts";

const at = { tenant: "team-a", vault: "git", entry: "main" };

function start() {
  const clock = new FakeClock(1_700_000_000_000);
  const state = { down: false };
  const written: ({ entry: string } & EntryReport)[] = [];
  const reports = new CredentialReports({
    clock,
    writer: {
      writeCredentialReport: async ({ entry }, report) => {
        if (state.down) throw new Error("no store");
        written.push({ entry, ...report });
      },
    },
  });
  return { clock, state, written, note: reports.note };
}

describe("CredentialReports", () => {
  it("tells once of an entry that goes on being read, and again after a minute", async () => {
    const { clock, written, note } = start();

    note({ ...at, version: "3" });
    await clock.advance(59_000);
    note({ ...at, version: "3" });
    await clock.advance(1000);
    note({ ...at, version: "3" });

    const report = { entry: "main", ok: true, reason: "Resolved", message: "", version: "3" };
    expect(written).toEqual([
      { ...report, ts: 1_700_000_000_000 },
      { ...report, ts: 1_700_000_060_000 },
    ]);
  });

  it("tells at once of what changes", () => {
    const { written, note } = start();
    const gone = { code: "CREDENTIAL_NOT_FOUND", message: "nothing there" };
    const away = { code: "CREDENTIAL_UNAVAILABLE", message: "vault is sealed" };

    note({ ...at, version: "3" });
    note({ ...at, version: "4" });
    note({ ...at, failure: gone });
    note({ ...at, failure: away });
    note({ ...at, entry: "other", version: "1" });

    expect(written.map(({ entry, ok, reason, message }) => [entry, ok, reason, message])).toEqual([
      ["main", true, "Resolved", ""],
      ["main", true, "Resolved", ""],
      ["main", false, "CredentialNotFound", "nothing there"],
      ["main", false, "CredentialUnavailable", "vault is sealed"],
      ["other", true, "Resolved", ""],
    ]);
  });

  it("does not blame the entry for what befell the session", () => {
    const { written, note } = start();

    note({ ...at, failure: { code: "SESSION_LEASE_LOST", message: "lost" } });

    expect(written).toEqual([]);
  });

  it("fails no read when the store is away, and tells after the next one", async () => {
    const { state, written, note } = start();
    state.down = true;
    note({ ...at, version: "3" });
    await Promise.resolve();
    await Promise.resolve();
    state.down = false;

    note({ ...at, version: "3" });

    expect(written).toHaveLength(1);
  });

  it("sends nothing longer than a status may hold", () => {
    const { written, note } = start();

    note({ ...at, version: "v".repeat(100) });
    note({ ...at, failure: { code: "CREDENTIAL_UNAVAILABLE", message: "x".repeat(5000) } });

    for (const { entry, ...report } of written) {
      expect([entry, entryReport.safeParse(report).success]).toEqual(["main", true]);
    }
    expect(written).toHaveLength(2);
  });
});
