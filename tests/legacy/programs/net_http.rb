# Net::HTTP of Ruby: a started one keeps its connection; the proxy is http_proxy.

# <sample>
require "net/http"

BASE = URI(ENV["BASE"])
HTTP = Net::HTTP.start(BASE.host, BASE.port)

def call(method, url, body = nil, etag = nil)
  request = Net::HTTP.const_get(method.capitalize).new(URI(url), "Accept" => "application/fhir+json")
  request["If-Match"] = etag if etag
  if body
    request.content_type = "application/fhir+json"
    request.body = body
  end
  HTTP.request(request)
end

def search(name)
  call("GET", "#{BASE}/Patient?" + URI.encode_www_form(name: name))
end
# </sample>

$stdout.sync = true
while (line = $stdin.gets)
  method, url, file, etag = line.split.map { |each| each == "-" ? nil : each }
  answer = method == "SEARCH" ? search(url) : call(method, url, file && File.binread(file), etag)
  File.binwrite(ENV["OUT"], answer.body || "")
  puts [answer.code, answer["ETag"], answer["Location"]].join("\t")
end
