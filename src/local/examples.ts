import { execFile } from "node:child_process";
import { mkdir, readdir } from "node:fs/promises";
import { promisify } from "node:util";

/**
 * The real source trees the examples work on, as the sandbox image has them under
 * `/opt/drover/examples`: packed from this installation's own dependencies, so no network is needed.
 */
const EXAMPLE_PACKAGES = ["process-warning"];

/** Packs what is not there yet. Where npm is missing the folder stays empty and the example says so. */
export async function packExamples(root: string, directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const present = await readdir(directory);
  for (const name of EXAMPLE_PACKAGES) {
    if (present.some((file) => file.startsWith(`${name}-`))) continue;
    const args = ["pack", "--ignore-scripts", "--silent", "--pack-destination", directory];
    await promisify(execFile)("npm", [...args, `./node_modules/${name}`], { cwd: root }).catch(
      () => undefined,
    );
  }
}
