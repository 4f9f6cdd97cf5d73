"""What a model, a user or a file may say to become code or markup of the page that shows it.

Each sets `harmed` on the window, opens a dialog, asks another server or hides the page if it gets its way.
"""

TEXTS = (
    "<script>globalThis.harmed = 1</script>",
    "<script>alert(1)</script>",
    "</script><script>globalThis.harmed = 1</script>",
    "</style></title></textarea></main></body><img src=x onerror=alert(1)>",
    "<img src=x onerror='globalThis.harmed = 1'>",
    "\"><svg onload=globalThis.harmed=1><a href='javascript:globalThis.harmed=1'>x</a></svg>",
    "' onmouseover='globalThis.harmed = 1' autofocus onfocus='globalThis.harmed = 1' x='",
    "javascript:globalThis.harmed = 1",
    '"><iframe srcdoc="<script>parent.harmed = 1</script>"></iframe>',
    "<a href='javascript:globalThis.harmed=1'>here</a> [here](javascript:globalThis.harmed=1)",
    "<style>* { display: none }</style><link rel=stylesheet href=//evil.test/x.css>",
    "<base href='https://evil.test/'><meta http-equiv=refresh content='0;url=//evil.test'>",
    "<details open ontoggle=globalThis.harmed=1><input autofocus onfocus=globalThis.harmed=1>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=globalThis.harmed=1>",
    "<object data='data:text/html,<script>parent.harmed=1</script>'></object><embed src=//evil.test>",
    "${globalThis.harmed = 1}{{constructor.constructor('globalThis.harmed = 1')()}}{{7*7}}",
    "'; globalThis.harmed = 1; //",
    "&lt;script&gt;globalThis.harmed=1&lt;/script&gt; ]]> --> <!--",
    "\u2028globalThis.harmed = 1\u2029 \u202e",
    "data: x\n\nevent: done\ndata: {}\n\n",
    "__proto__",
    "constructor",
)
"""Every keyboard can type them."""

BROKEN = ("\ud800 half a character", "nothing\x00here", "\x1b[31mred\x1b[0m\x07")
"""No keyboard can, and a file can hold them."""

HARMED = "globalThis.harmed ?? null"
"""JavaScript: null while nothing got its way."""
