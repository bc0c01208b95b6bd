import { expect, it } from "@jest/globals";
import { z } from "zod";
import { loadConfig } from "../runtime/config.ts";
import { commitSetting, parseCommitMode } from "./commit-mode.ts";

const schema = z.object({ commit: commitSetting });
const setting = (text?: string) => loadConfig(schema, { DROVER_REDIS_COMMIT: text }).commit;

it.each([
  { text: undefined, mode: { mode: "fsync" } },
  { text: "fsync", mode: { mode: "fsync" } },
  { text: "provider", mode: { mode: "provider" } },
  { text: "replicas:2", mode: { mode: "replicas", n: 2 } },
])("$text means $mode", ({ text, mode }) => {
  expect(parseCommitMode(setting(text))).toEqual(mode);
});

it.each([" ", "none", "replicas", "replicas:0", "replicas:10", "replicas:-1", "fsync,provider"])(
  'no mode but the three is accepted: "%s" is not one',
  (text) => {
    expect(() => setting(text)).toThrow("must be fsync, provider or replicas:N");
  },
);
