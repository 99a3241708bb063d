"""`python -m tests.golden` writes the golden copies anew, after a change of the API that was meant."""

import json
from pathlib import Path

from tidegate.api import Tidegate
from tidegate.contract import areas, codec
from tidegate.contract.openapi import document
from tidegate.contract.serve import PREFIX

if __name__ == "__main__":
    made = codec.plain(document([contract for contract, _ in areas(Tidegate)], PREFIX))
    target = Path(__file__).parents[1] / "docs" / "openapi.json"
    target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {target}")
