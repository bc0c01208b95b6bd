import { BlockList, isIP } from "node:net";

/**
 * Which addresses the proxy may dial. IPv4: everything but the special-purpose blocks (RFC 6890).
 * IPv6: global unicast (2000::/3) without its special-purpose blocks; that leaves out the forms that
 * carry an IPv4 address inside (mapped, NAT64, 6to4), so they need no unwrapping.
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

/** Where clouds hand out the node's identity: refused even for hosts the platform team lists. */
const metadata = new BlockList();
metadata.addSubnet("169.254.0.0", 16, "ipv4");
metadata.addAddress("168.63.129.16", "ipv4");
metadata.addAddress("100.100.100.200", "ipv4");
metadata.addAddress("192.0.0.192", "ipv4");
metadata.addSubnet("fe80::", 10, "ipv6");
metadata.addSubnet("fd00:ec2::", 32, "ipv6");
metadata.addAddress("fd20:ce::254", "ipv6");

/** True for an address on the public internet. Anything that is no address is not. */
export function isPublicAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 4) return !special.check(address, "ipv4");
  return family === 6 && globalUnicast6.check(address, "ipv6") && !special.check(address, "ipv6");
}

/** True for link-local and cloud metadata addresses, IPv4-mapped ones included. */
export function isMetadataAddress(address: string): boolean {
  const plain = address.split("%")[0] ?? "";
  const family = isIP(plain);
  if (family === 0) return true;
  return metadata.check(plain, family === 4 ? "ipv4" : "ipv6");
}
