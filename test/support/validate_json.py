#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# validate_json.py SCHEMA PROGRAM ARGUMENTS...: what the program prints is what the schema says, by another validator than
# our own (json_schema.hpp).
import json
import subprocess
import sys

try:
    import jsonschema
except ImportError:
    print("FABRICMEM-SKIPPED: python3 has no jsonschema")
    sys.exit(0)

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
jsonschema.Draft202012Validator.check_schema(schema)
said = subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False).stdout
faults = list(jsonschema.Draft202012Validator(schema).iter_errors(json.loads(said)))
for fault in faults:
    print(f"{fault.json_path}: {fault.message}")
sys.exit(1 if faults else 0)
