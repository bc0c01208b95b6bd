import { expect, it } from "@jest/globals";
import { SANDBOX_TOOLS } from "./sandbox-api.ts";
import { sandboxToolDeclarations } from "./sandbox-tools.ts";

it("every tool of a sandbox is declared, with a description and a schema of an object", () => {
  const declared = sandboxToolDeclarations();

  expect(declared.map((tool) => tool.name)).toEqual([...SANDBOX_TOOLS]);
  for (const tool of declared) {
    expect(tool.description.length).toBeGreaterThan(20);
    expect(tool.input_schema.type).toBe("object");
    expect(tool.input_schema).not.toHaveProperty("$schema");
  }
});
