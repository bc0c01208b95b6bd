import { BlockList, isIP } from "node:net";

/**
 * Which addresses the proxy may dial. An IPv6 address that carries IPv4 addresses inside is judged by
 * those: packets to it end up there.
 *
 * - Hosts that nobody lists: public ones only. IPv4: everything but the special-purpose blocks
 *   (RFC 6890). IPv6: global unicast (2000::/3) without its special-purpose blocks and without any form
 *   that carries an IPv4 address.
 * - Hosts that the platform team lists: private ones and loopback too. Loopback is meant for local mode,
 *   whose servers run beside it, and counts as itself or IPv4-mapped only. In a harness pod it leads to
 *   the harness and the sidecar, which take no request without a session token: whoever lists a host
 *   there answers for its DNS.
 * - Nobody: link-local, cloud metadata, unspecified (systems take it for loopback), multicast and
 *   broadcast addresses.
 */

const special = new BlockList();
for (const [net, prefix] of [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 4],
  ["240.0.0.0", 4],
  // Azure's host endpoint lies in ordinary address space.
  ["168.63.129.16", 32],
] as const) {
  special.addSubnet(net, prefix, "ipv4");
}
for (const [net, prefix] of [
  ["2001::", 23],
  ["2001:db8::", 32],
  ["2002::", 16],
  ["3fff::", 20],
] as const) {
  special.addSubnet(net, prefix, "ipv6");
}

const globalUnicast6 = new BlockList();
globalUnicast6.addSubnet("2000::", 3, "ipv6");

/** Never dialled, whoever is listed: first of all where clouds hand out the node's identity. */
const never = new BlockList();
never.addSubnet("0.0.0.0", 8, "ipv4");
never.addSubnet("169.254.0.0", 16, "ipv4");
never.addSubnet("224.0.0.0", 4, "ipv4");
never.addAddress("255.255.255.255", "ipv4");
never.addAddress("168.63.129.16", "ipv4");
never.addAddress("100.100.100.200", "ipv4");
never.addAddress("192.0.0.192", "ipv4");
never.addAddress("::", "ipv6");
never.addSubnet("fe80::", 10, "ipv6");
never.addSubnet("ff00::", 8, "ipv6");
never.addSubnet("fd00:ec2::", 32, "ipv6");
never.addAddress("fd00:c1::a9fe:a9fe", "ipv6");
never.addAddress("fd20:ce::254", "ipv6");

/** True for an address on the public internet. Anything that is no address is not. */
export function isPublicAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 4) return !special.check(address, "ipv4");
  return (
    family === 6 &&
    globalUnicast6.check(address, "ipv6") &&
    !special.check(address, "ipv6") &&
    carriedBy(address).length === 0
  );
}

/** True for what is never dialled: metadata and the like, in any form, and what is no address. */
export function isMetadataAddress(address: string): boolean {
  const plain = address.split("%")[0] ?? "";
  const family = isIP(plain);
  if (family === 0) return true;
  if (family === 4) return never.check(plain, "ipv4");
  return never.check(plain, "ipv6") || carriedBy(plain).some((inner) => isNeverInside(inner));
}

interface Carried {
  ipv4: string;
  /** The system itself takes the address for this one; the other forms need a gateway. */
  isMapped: boolean;
}

function isNeverInside({ ipv4, isMapped }: Carried): boolean {
  return never.check(ipv4, "ipv4") || (!isMapped && ipv4.startsWith("127."));
}

/** The IPv4 addresses inside an IPv6 address, in every form that there is. */
function carriedBy(address: string): Carried[] {
  const bytes = bytesOf(address);
  const group = (index: number) => (bytes[index * 2] ?? 0) * 256 + (bytes[index * 2 + 1] ?? 0);
  const startsWith = (...groups: number[]) =>
    groups.every((value, index) => group(index) === value);
  const at = (...places: number[]) => places.map((place) => bytes[place] ?? 0).join(".");
  const last = at(12, 13, 14, 15);
  const one = (ipv4: string) => [{ ipv4, isMapped: false }];
  if (startsWith(0, 0, 0, 0, 0, 0xffff)) return [{ ipv4: last, isMapped: true }];
  // Translated, and the old compatible form, of which `::` and `::1` are none.
  if (startsWith(0, 0, 0, 0, 0xffff, 0)) return one(last);
  if (startsWith(0, 0, 0, 0, 0, 0)) return group(6) === 0 && group(7) <= 1 ? [] : one(last);
  if (startsWith(0x64, 0xff9b, 0, 0, 0, 0)) return one(last);
  // NAT64 of one's own: where the address is depends on a length that nobody tells (RFC 6052).
  if (startsWith(0x64, 0xff9b, 1)) {
    const others = [at(6, 7, 9, 10), at(7, 9, 10, 11), at(9, 10, 11, 12)];
    const places = [last, ...others.filter((ipv4) => !ipv4.startsWith("0."))];
    return places.flatMap((ipv4) => one(ipv4));
  }
  if (startsWith(0x2002)) return one(at(2, 3, 4, 5));
  // Teredo: the server's address, and the client's with all bits turned.
  if (startsWith(0x2001, 0)) {
    const client = bytes.slice(12).map((byte) => 255 - byte);
    return [...one(at(4, 5, 6, 7)), ...one(client.join("."))];
  }
  // ISATAP
  return (group(4) === 0 || group(4) === 0x200) && group(5) === 0x5efe ? one(last) : [];
}

/** The sixteen bytes of an IPv6 address; the URL parser knows every way to write it. */
function bytesOf(address: string): number[] {
  const text = new URL(`http://[${address.split("%")[0] ?? ""}]`).hostname.slice(1, -1);
  const [head = "", tail = ""] = text.split("::");
  const groupsOf = (part: string) => (part === "" ? [] : part.split(":"));
  const left = groupsOf(head);
  const right = groupsOf(tail);
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => "0");
  return [...left, ...zeros, ...right].flatMap((part) => {
    const value = Number.parseInt(part, 16);
    return [value >> 8, value & 255];
  });
}
