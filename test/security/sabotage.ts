import { readdir } from "node:fs/promises";
import { join } from "node:path";

/**
 * One defence of the product, turned off in a copy of the source text: the attack that it stops must
 * then succeed, so that its test fails. The product itself has no switch for it.
 */
export interface Sabotage {
  /** `T02`: the case, as `cases.ts` lists it. */
  case: string;
  /** One sentence: what is turned off. */
  defence: string;
  /** From the root of the repository. */
  file: string;
  /** Exact text of that file, in which it occurs once. */
  find: string;
  replace: string;
  /** The test file of the case, from the root of the repository. */
  test: string;
  /** Regular expression of the names of the tests that must fail; all of the file without it. */
  name?: string;
}

const FOLDER = join(import.meta.dirname, "sabotages");

/** What every `test/security/sabotages/tNN.ts` exports as `sabotages`, in the order of the cases. */
export async function loadSabotages(): Promise<Sabotage[]> {
  const names = (await readdir(FOLDER)).filter((name) => name.endsWith(".ts")).toSorted();
  const modules = await Promise.all(
    names.map(
      async (name) =>
        (await import(join(FOLDER, name))) as { sabotages?: readonly Sabotage[] | undefined },
    ),
  );
  return modules.flatMap(({ sabotages }, index) => {
    if (sabotages === undefined) throw new Error(`${names[index]} exports no sabotages`);
    return sabotages;
  });
}

/** The text with the defence turned off. Throws when `find` is not there exactly once. */
export function sabotaged(text: string, sabotage: Sabotage): string {
  const times = text.split(sabotage.find).length - 1;
  if (times === 1) return text.replace(sabotage.find, () => sabotage.replace);
  const which = `sabotage of ${sabotage.case} "${sabotage.defence}"`;
  throw new Error(`${which}: its text occurs ${times} times in ${sabotage.file}, not once`);
}
