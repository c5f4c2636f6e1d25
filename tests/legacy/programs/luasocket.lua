-- socket.http of LuaSocket: one connection a request.

-- <sample>
local http = require("socket.http")
local ltn12 = require("ltn12")
local escape = require("socket.url").escape
http.PROXY = os.getenv("http_proxy")

local function call(method, url, body, etag)
  local fields = { ["accept"] = "application/fhir+json", ["if-match"] = etag }
  if body then
    fields["content-type"] = "application/fhir+json"
    fields["content-length"] = #body -- or it goes out in chunks
  end
  local pieces = {}
  local _, status, headers = http.request({
    method = method, url = url, headers = fields,
    source = body and ltn12.source.string(body), sink = ltn12.sink.table(pieces),
  })
  return status, headers, table.concat(pieces)
end

local function search(name)
  return call("GET", os.getenv("BASE") .. "/Patient?name=" .. escape(name))
end
-- </sample>

local function known(word)
  return word ~= "-" and word or nil
end
for line in io.lines() do
  local method, url, file, etag = line:match("(%S+)\t(%S+)\t(%S+)\t(%S+)")
  local body
  if known(file) then
    local input = assert(io.open(file, "rb"))
    body = input:read("a")
    input:close()
  end
  local status, headers, text
  if method == "SEARCH" then
    status, headers, text = search(url)
  else
    status, headers, text = call(method, url, body, known(etag))
  end
  headers = headers or {}
  local out = assert(io.open(os.getenv("OUT"), "wb"))
  out:write(text)
  out:close()
  io.write(tostring(status), "\t", headers.etag or "", "\t", headers.location or "", "\n")
  io.flush()
end
