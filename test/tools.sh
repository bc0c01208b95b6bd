#!/bin/bash
# usage: tools.sh PROGRAM...   Makes sure that programs are there: installs Debian packages when it
# can (root on Debian or Ubuntu), otherwise says precisely what is missing and exits 1.
set -euo pipefail

declare -A PACKAGE=([rg]=ripgrep [redis-server]=redis-server [git]=git [bash]=bash)

missing=()
for program in "$@"; do
  command -v "$program" > /dev/null || missing+=("$program")
done
[ ${#missing[@]} -eq 0 ] && exit 0

packages=()
for program in "${missing[@]}"; do
  [ -n "${PACKAGE[$program]:-}" ] && packages+=("${PACKAGE[$program]}")
done

if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null && [ ${#packages[@]} -eq ${#missing[@]} ]; then
  echo "installing ${packages[*]} with apt-get" >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >&2
  # Debian starts a packaged server at once; ours are started by the tests, on ports of their own.
  printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d.drover
  chmod +x /usr/sbin/policy-rc.d.drover
  [ -e /usr/sbin/policy-rc.d ] || { mv /usr/sbin/policy-rc.d.drover /usr/sbin/policy-rc.d; ours=1; }
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
  [ -n "${ours:-}" ] && rm -f /usr/sbin/policy-rc.d
  rm -f /usr/sbin/policy-rc.d.drover
  exit 0
fi

for program in "${missing[@]}"; do
  echo "missing: $program (Debian package: ${PACKAGE[$program]:-$program}); install it and run the command again" >&2
done
exit 1
