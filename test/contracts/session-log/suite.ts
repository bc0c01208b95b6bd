import { afterEach, describe } from "@jest/globals";
import { describeAppends } from "./appends.ts";
import { describeClaims } from "./claims.ts";
import { describeControl } from "./control.ts";
import { describeLeaseWrites } from "./lease-writes.ts";
import { describeOperatorTables } from "./operator-tables.ts";
import { describeQuarantine } from "./quarantine.ts";
import { describeReading } from "./reading.ts";
import { describeReleases } from "./releases.ts";
import { CONTRACT_TIMINGS, type OpenStore, Rig, type SetUp, type StoreUnderTest } from "./rig.ts";
import { describeTailing } from "./tailing.ts";

/** What every implementation of the session log must do: run by the test file of each. */
export function describeSessionLog(name: string, open: OpenStore): void {
  describe(`the session log (${name})`, () => {
    let opened: StoreUnderTest | undefined;

    afterEach(async () => {
      await opened?.close();
      opened = undefined;
    });

    const setUp: SetUp = async (timings = CONTRACT_TIMINGS) => {
      opened = await open(timings);
      const { store, backend, pass, traces } = opened;
      const rig = new Rig(opened);
      return { store, log: store.log, operator: store.operator, backend, pass, traces, rig };
    };

    describeAppends(setUp);
    describeReading(setUp);
    describeClaims(setUp);
    describeLeaseWrites(setUp);
    describeReleases(setUp);
    describeControl(setUp);
    describeQuarantine(setUp);
    describeOperatorTables(setUp);
    describeTailing(setUp);
  });
}
