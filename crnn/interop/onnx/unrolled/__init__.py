# SPDX-License-Identifier: MIT
"""Files in which a recurrent layer has been unrolled into its steps, as some exporters write them.

    nodes --operators--> Steps, vectors of one step as sums of products      `algebra`, `steps`
                    --equations--> one step of a cell                        `equations`
                    --chains--> a layer, if all steps are the same           `chains`

The graph is evaluated symbolically. What an output then is, is compared with the equations of the cells: every term
must have its place in them, and every step must have the same parameters. Nothing is guessed from names or numbers.
"""
