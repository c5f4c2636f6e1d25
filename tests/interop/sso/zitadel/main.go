// An OpenID provider of the library zitadel/oidc, whose clients and user come from a file.
//
//	zitadel FILE
//
// Tokens are opaque and in memory, and so are sessions: a restart forgets both. An administrator's changes
// (a client's secret, whether it is enabled, the signing key) are POSTs to /admin/.
package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"html/template"
	"log"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

type settings struct {
	Issuer   string
	Listen   string
	Lifetime int // of an access token, in seconds
	User     storage.User
	Clients  []*client
}

// A client as the library sees one: what the example's says, but for this.
type client struct {
	*storage.Client `json:"-"`
	ID              string
	Secret          string
	Method          oidc.AuthMethod
	Grants          []oidc.GrantType
	Redirects       []string
	SignOuts        []string
	disabled        bool
}

func (c *client) AuthMethod() oidc.AuthMethod      { return c.Method }
func (c *client) GrantTypes() []oidc.GrantType     { return c.Grants }
func (c *client) PostLogoutRedirectURIs() []string { return c.SignOuts }
func (c *client) LoginURL(request string) string   { return "/login?id=" + request }

type key struct {
	id        string
	algorithm jose.SignatureAlgorithm
	private   any
	public    any
}

func (k *key) ID() string                                  { return k.id }
func (k *key) Key() any                                    { return k.private }
func (k *key) SignatureAlgorithm() jose.SignatureAlgorithm { return k.algorithm }

type publicKey struct{ *key }

func (k publicKey) Key() any                           { return k.public }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Algorithm() jose.SignatureAlgorithm { return k.algorithm }

// The example's storage has the requests of users and the refresh tokens. Clients, keys and the
// lifetime of access tokens are those of the settings.
type memory struct {
	*storage.Storage
	user     *storage.User
	lifetime time.Duration
	lock     sync.Mutex
	clients  map[string]*client
	expiry   map[string]time.Time
	keys     []*key
}

func (m *memory) GetUserByID(string) *storage.User { return m.user }
func (m *memory) ExampleClientID() string          { return "" }
func (m *memory) GetUserByUsername(name string) *storage.User {
	if name != m.user.Username {
		return nil
	}
	return m.user
}

func (m *memory) client(id string) (*client, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	found, known := m.clients[id]
	if !known || found.disabled {
		return nil, errors.New("no such client")
	}
	return found, nil
}

func (m *memory) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	return m.client(id)
}

func (m *memory) ClientCredentials(_ context.Context, id, secret string) (op.Client, error) {
	found, err := m.client(id)
	if err != nil || found.Secret == "" || found.Secret != secret {
		return nil, errors.New("no such client, or another secret")
	}
	return found, nil
}

func (m *memory) AuthorizeClientIDSecret(ctx context.Context, id, secret string) error {
	_, err := m.ClientCredentials(ctx, id, secret)
	return err
}

func (m *memory) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	return &oidc.JWTTokenRequest{Subject: id, Audience: []string{id}, Scopes: scopes}, nil
}

func (m *memory) expires(id string) time.Time {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.expiry[id] = time.Now().Add(m.lifetime)
	return m.expiry[id]
}

func (m *memory) CreateAccessToken(ctx context.Context, request op.TokenRequest) (string, time.Time, error) {
	id, _, err := m.Storage.CreateAccessToken(ctx, request)
	return id, m.expires(id), err
}

func (m *memory) CreateAccessAndRefreshTokens(ctx context.Context, request op.TokenRequest, refresh string) (string, string, time.Time, error) {
	id, refresh, _, err := m.Storage.CreateAccessAndRefreshTokens(ctx, request, refresh)
	return id, refresh, m.expires(id), err
}

func (m *memory) RevokeToken(ctx context.Context, token, user, client string) *oidc.Error {
	m.lock.Lock()
	delete(m.expiry, token)
	m.lock.Unlock()
	return m.Storage.RevokeToken(ctx, token, user, client)
}

func (m *memory) SetIntrospectionFromToken(_ context.Context, told *oidc.IntrospectionResponse, id, subject, _ string) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	if !time.Now().Before(m.expiry[id]) {
		return errors.New("no such token, or it has expired")
	}
	told.Subject = subject
	return nil
}

func (m *memory) rotate() error {
	m.lock.Lock()
	defer m.lock.Unlock()
	made := &key{id: uuid.NewString(), algorithm: jose.RS256}
	if len(m.keys)%2 == 0 {
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return err
		}
		made.private, made.public = private, private.Public()
	} else {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		made.algorithm, made.private, made.public = jose.ES256, private, private.Public()
	}
	m.keys = append(m.keys, made)
	return nil
}

func (m *memory) SigningKey(context.Context) (op.SigningKey, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.keys[len(m.keys)-1], nil
}

func (m *memory) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256, jose.ES256}, nil
}

func (m *memory) KeySet(context.Context) ([]op.Key, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	keys := make([]op.Key, 0, len(m.keys))
	for _, each := range m.keys {
		keys = append(keys, publicKey{each})
	}
	return keys, nil
}

type server struct {
	provider *op.Provider
	memory   *memory
}

var loginPage = template.Must(template.New("login").Parse(`<!doctype html><title>Sign in</title>
<form method="post"><input type="hidden" name="id" value="{{.}}"><input id="username" name="username">
<input id="password" name="password" type="password"><button id="submit">Sign in</button></form>`))

func (s server) login(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	if r.Method != http.MethodPost || s.memory.CheckUsernamePassword(r.FormValue("username"), r.FormValue("password"), id) != nil {
		_ = loginPage.Execute(w, id)
		return
	}
	ctx := op.ContextWithIssuer(r.Context(), s.provider.IssuerFromRequest(r))
	http.Redirect(w, r, op.AuthCallbackURL(s.provider)(ctx, id), http.StatusFound)
}

func (s server) admin(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("what") == "key" {
		if err := s.memory.rotate(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		return
	}
	s.memory.lock.Lock()
	defer s.memory.lock.Unlock()
	found, known := s.memory.clients[r.PathValue("what")]
	if !known {
		http.NotFound(w, r)
		return
	}
	found.Secret = cmp.Or(r.FormValue("secret"), found.Secret)
	found.disabled = r.FormValue("enabled") == "false"
}

func main() {
	log.SetFlags(0)
	file, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var told settings
	if err := json.Unmarshal(file, &told); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(told.Listen, handler(told)))
}

func handler(told settings) http.Handler {
	kept := &memory{
		user:     &told.User,
		lifetime: time.Duration(told.Lifetime) * time.Second,
		clients:  map[string]*client{},
		expiry:   map[string]time.Time{},
	}
	kept.Storage = storage.NewStorage(kept)
	for _, each := range told.Clients {
		each.Client = storage.WebClient(each.ID, each.Secret, slices.Clone(each.Redirects)...)
		kept.clients[each.ID] = each
	}
	if err := kept.rotate(); err != nil {
		log.Fatal(err)
	}
	config := &op.Config{
		CodeMethodS256:        true,
		AuthMethodPost:        true,
		GrantTypeRefreshToken: true,
	}
	_, _ = rand.Read(config.CryptoKey[:])
	provider, err := op.NewProvider(config, kept, op.StaticIssuer(told.Issuer), op.WithAllowInsecure())
	if err != nil {
		log.Fatal(err)
	}
	all := server{provider, kept}
	mux := http.NewServeMux()
	mux.HandleFunc("/login", all.login)
	mux.HandleFunc("POST /admin/{what}", all.admin)
	mux.Handle("/", provider)
	return mux
}
