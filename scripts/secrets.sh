#!/usr/bin/env bash
# Makes the secrets that docker-compose.yml mounts, where they are missing: random, and on this machine only.
#
#   secrets/database_password    of the database's user
#   secrets/database_url         the same password as part of the URL that espalier connects to
#   secrets/api_keys             who may call the API, one key a line
#   secrets/s3.env               credentials of the S3 server of deploy/compose/s3.yml
#
# The folder is closed to other users of this machine. The files in it are readable, because Compose mounts them as they
# are and the processes in the containers run as users of their own.
set -euo pipefail
cd "$(dirname "$0")/.."

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

mkdir -p secrets
chmod 700 secrets

if [ ! -s secrets/database_password ]; then
  random >secrets/database_password
  rm -f secrets/database_url
fi
if [ ! -s secrets/database_url ]; then
  printf 'postgres://espalier:%s@db/espalier\n' "$(cat secrets/database_password)" >secrets/database_url
fi
# The file holds the key alone, so that $(cat secrets/api_keys) is a key; earlier versions wrote a comment behind it.
if grep -qs ' # made by scripts/secrets.sh$' secrets/api_keys; then
  keys=$(sed 's| # made by scripts/secrets.sh$||' secrets/api_keys)
  printf '%s\n' "$keys" >secrets/api_keys
fi
if [ ! -s secrets/api_keys ]; then
  printf '%s\n' "$(random)" >secrets/api_keys
fi
if [ ! -s secrets/s3.env ]; then
  printf 'AWS_ACCESS_KEY_ID=espalier\nAWS_SECRET_ACCESS_KEY=%s\n' "$(random)" >secrets/s3.env
fi
chmod 644 secrets/s3.env secrets/database_password secrets/database_url secrets/api_keys
