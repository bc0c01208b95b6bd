import type { z } from "zod";

/** What the model is told about an input that does not fit: each field, what is wrong, what is taken. Pure. */
export function describeInput(tool: string, error: z.ZodError): string {
  const problems = error.issues.map((issue) => {
    const field = issue.path.length === 0 ? "input" : issue.path.join(".");
    return `\`${field}\`: ${issue.message}`;
  });
  return `${tool}: the input does not fit: ${problems.join("; ")}`;
}
