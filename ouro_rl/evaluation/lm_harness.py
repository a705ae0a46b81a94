"""lm-evaluation-harness with the model `ouro-rl`, taking the harness's own arguments:

python -m ouro_rl.evaluation.lm_harness --model ouro-rl --model_args pretrained=PATH,threshold=0.5 --tasks ...
"""

from __future__ import annotations

import sys

from ouro_rl.core.own_names import pin_own_packages


def main() -> int:
    """Returns the exit status: 2 if the harness is not installed."""
    pin_own_packages()
    try:
        import lm_eval.__main__
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "lm_eval":
            raise
        print("lm-evaluation-harness is not installed: pip install lm_eval", file=sys.stderr)
        return 2
    import ouro_rl.evaluation.lm_harness_model  # noqa: F401 (registers the model)

    lm_eval.__main__.cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
