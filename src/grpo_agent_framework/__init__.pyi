from stateset_agents import *
from stateset_agents import __version__ as __version__
