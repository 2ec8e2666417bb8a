"""Processing elements as hardware, and what they cost in a cell library.

``unit``        what a piece of hardware tells the flow; ``units``: which there are, one module a family
``parts``       the circuits that they are made of (Amaranth), ``fused_add`` the largest of them
``arrays``      what lies between PEs: skew, chains, drains; ``cosim``: hardware run cycle by cycle
``liberty``     cell libraries; ``cells``: what the flow takes from one
``synthesis``   from hardware to gates (pyosys)
``network``     the gates with their figures; ``timing``: their shortest period; ``gates``: their energy
``characterise`` all of it for a list of units, into a cost table that `simulator.hardware` reads

Nothing else of the package imports this room: its results are tables. It needs the extra ``rtl``.
"""
