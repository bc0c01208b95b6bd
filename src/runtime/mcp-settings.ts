import { z } from "zod";

/** So long one call of an MCP tool may take, in every process on its way. */
export const MCP_CALL_MS = 300_000;

export const mcpCallSetting = z.coerce
  .number()
  .int()
  .min(1000)
  .max(3_600_000)
  .default(MCP_CALL_MS)
  .meta({
    env: "DROVER_MCP_CALL_TIMEOUT_MS",
    description:
      "Milliseconds a call of an MCP tool may take. Harness and proxy must have the same value.",
  });
