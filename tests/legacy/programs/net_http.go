// net/http of Go: the default client keeps connections; the proxy is http_proxy.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// <sample>
func call(method, address string, body []byte, etag string) (*http.Response, []byte) {
	var sent io.Reader
	if body != nil {
		sent = bytes.NewReader(body)
	}
	request, err := http.NewRequest(method, address, sent)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Accept", "application/fhir+json")
	request.Header.Set("Content-Type", "application/fhir+json")
	if etag != "" {
		request.Header.Set("If-Match", etag)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body) // to the end, or the connection is not used again
	if err != nil {
		panic(err)
	}
	return answer, text
}

func search(name string) (*http.Response, []byte) {
	return call("GET", os.Getenv("BASE")+"/Patient?"+url.Values{"name": {name}}.Encode(), nil, "")
}

// </sample>

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		order := strings.Fields(strings.ReplaceAll(lines.Text(), "\t-", "\t\"\""))
		for at, each := range order {
			order[at] = strings.TrimPrefix(each, "\"\"")
		}
		var body []byte
		if order[2] != "" {
			body, _ = os.ReadFile(order[2])
		}
		var answer *http.Response
		var text []byte
		if order[0] == "SEARCH" {
			answer, text = search(order[1])
		} else {
			answer, text = call(order[0], order[1], body, order[3])
		}
		os.WriteFile(os.Getenv("OUT"), text, 0600)
		fmt.Printf("%d\t%s\t%s\n", answer.StatusCode, answer.Header.Get("ETag"), answer.Header.Get("Location"))
	}
}
