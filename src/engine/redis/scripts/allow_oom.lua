#!lua flags=allow-oom
-- First in scripts that also run in a Redis which has no room: they free some, or keep true what is there. Only those that
-- write in any case: such a script is refused as a whole where writes are.

