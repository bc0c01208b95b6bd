import { AppError } from "../../../runtime/errors.ts";
import { BAND, encodeBand, encodePkt, FLUSH, isFlush, readPkt } from "./pkt-line.ts";
import type { RefCommand } from "./ref-policy.ts";
import { oneLine } from "./refusals.ts";

/** What stands before the pack: room for some 500 refs. */
const MAX_COMMAND_BYTES = 64 * 1024;

/** A push as far as its commands; the pack follows. */
export interface PushRequest {
  commands: readonly RefCommand[];
  /** By name: of `agent=git/2.39` it is `agent`. */
  capabilities: ReadonlySet<string>;
  /** Everything that has been read, byte for byte: commands, flush and perhaps the pack's beginning. */
  read: Buffer;
  /** Whether more may follow the commands; false for the empty probe before a long push. */
  hasPack: boolean;
}

const ID = "(?:[0-9a-f]{40}|[0-9a-f]{64})";
// git check-ref-format, so that no two readers can disagree about where a name ends.
const REF = String.raw`refs/[^\x00-\x20\x7f~^:?*[\\]+`;
const COMMAND = new RegExp(`^(?<oldId>${ID}) (?<newId>${ID}) (?<ref>${REF})$`);
const SHALLOW = new RegExp(`^shallow ${ID}$`);

/**
 * Reads commands from the beginning of a push. What is not understood is refused, never passed on
 * unread: the git host could understand more. Throws INPUT_INVALID or INPUT_TOO_LARGE.
 */
export async function readPush(chunks: AsyncIterator<Buffer>): Promise<PushRequest> {
  const parser = new CommandParser();
  let read = Buffer.alloc(0);
  for (let offset = 0; ; ) {
    const pkt = readPkt(read, offset);
    if (pkt === undefined) {
      if (read.length - offset > MAX_COMMAND_BYTES) throw tooManyCommands();
      const { done, value } = await chunks.next();
      if (done === true) throw unreadable("it ends before its commands do");
      read = Buffer.concat([read, value]);
      continue;
    }
    offset += pkt.raw.length;
    if (offset > MAX_COMMAND_BYTES) throw tooManyCommands();
    if (isFlush(pkt)) return parser.finish(read);
    if (pkt.payload === undefined) throw unreadable("it has an odd mark among its commands");
    parser.line(pkt.payload);
  }
}

/** Collects commands, also those inside the certificate of a signed push. */
class CommandParser {
  readonly #commands: RefCommand[] = [];
  #capabilities: ReadonlySet<string> | undefined;
  #inCertificate = false;

  line(payload: Buffer): void {
    // Byte for byte: a name is compared as the git host will compare it.
    const text = payload.toString("latin1");
    if (this.#inCertificate) this.#certificateLine(text);
    else this.#plainLine(this.#withoutCapabilities(text.replace(/\n$/, "")));
  }

  finish(read: Buffer): PushRequest {
    if (this.#inCertificate) throw unreadable("its certificate has no end");
    const commands = this.#commands;
    if (new Set(commands.map(({ ref }) => ref)).size < commands.length) {
      throw unreadable("it names one ref twice");
    }
    const hasPack = commands.length > 0;
    if (!hasPack && read.length > FLUSH.length) throw unreadable("it has no commands");
    const capabilities = this.#capabilities ?? new Set<string>();
    return { commands, capabilities, read, hasPack };
  }

  /** Capabilities follow a NUL on the first line that has them. */
  #withoutCapabilities(text: string): string {
    const end = text.indexOf("\0");
    if (end < 0) return text;
    if (this.#capabilities !== undefined) throw unreadable("it lists capabilities twice");
    this.#capabilities = capabilitiesOf(text.slice(end + 1));
    return text.slice(0, end);
  }

  #plainLine(text: string): void {
    if (text === "push-cert") this.#inCertificate = true;
    else if (!SHALLOW.test(text)) this.#command(text);
  }

  /**
   * A certificate holds a header, the commands and a signature; git joins its packets and reads it
   * line by line, so each packet must be one line. Whatever begins as a command counts as one,
   * wherever it stands, so that the git host cannot find one we did not.
   */
  #certificateLine(text: string): void {
    if (!/^[^\0\r\n]*\n$/.test(text)) throw unreadable("its certificate is not made of lines");
    const line = text.slice(0, -1);
    if (line === "push-cert-end") this.#inCertificate = false;
    else if (/^[0-9a-f]{40}/i.test(line)) this.#command(line);
  }

  #command(line: string): void {
    const command = asCommand(line);
    if (command === undefined) throw unreadable("it has a line that is no command");
    this.#commands.push(command);
  }
}

/** Answers a push that is not passed on, so that git prints the reason beside each ref. */
export function pushReport(
  { commands, capabilities }: Pick<PushRequest, "commands" | "capabilities">,
  reasonOf: (ref: string) => string,
): Buffer {
  const lines = commands.map(({ ref }) =>
    encodePkt(Buffer.from(`ng ${ref} ${oneLine(reasonOf(ref))}\n`, "latin1")),
  );
  const report = Buffer.concat([encodePkt("unpack ok\n"), ...lines, FLUSH]);
  return capabilities.has("side-band-64k")
    ? Buffer.concat([encodeBand(BAND.data, report), FLUSH])
    : report;
}

/**
 * Git takes any white space between capabilities and `name=value` for `name`: words with one space
 * between them, after perhaps one in front, are all that can be read in one way.
 */
function capabilitiesOf(text: string): ReadonlySet<string> {
  const words = text === "" ? [] : text.replace(/^ /, "").split(" ");
  if (!words.every((word) => /^[\x21-\x7e]+$/.test(word))) {
    throw unreadable("its capabilities are not words with one space between them");
  }
  return new Set(words.map((word) => word.replace(/=.*/, "")));
}

function asCommand(line: string): RefCommand | undefined {
  const { oldId, newId, ref } = COMMAND.exec(line)?.groups ?? {};
  if (oldId === undefined || newId === undefined || ref === undefined) return undefined;
  if (ref.includes("..") || ref.includes("//") || ref.includes("@{")) return undefined;
  return { oldId, newId, ref };
}

function unreadable(what: string): AppError {
  return new AppError("INPUT_INVALID", `the push cannot be read: ${what}`);
}

function tooManyCommands(): AppError {
  return new AppError(
    "INPUT_TOO_LARGE",
    `the push names too many refs: its commands are longer than ${MAX_COMMAND_BYTES} bytes`,
    { details: { limit: MAX_COMMAND_BYTES } },
  );
}
