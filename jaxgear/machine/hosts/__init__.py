"""Several processes (hosts) that train as one: how they meet, and what happens if one is lost.

coordinator.py is where to start. lost.py notices a host that ended or froze, and says how to go on.
"""

from jaxgear.machine.hosts.coordinator import join as join
from jaxgear.machine.hosts.lost import lost_host as lost_host
from jaxgear.machine.hosts.lost import name_run as name_run
