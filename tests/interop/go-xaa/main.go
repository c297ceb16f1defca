// Cross-App Access end to end with the Go SDK, auth/extauth.
//
// env: IDP_ISSUER IDP_CLIENT_ID [IDP_CLIENT_SECRET] RAS_ISSUER RAS_CLIENT_ID [RAS_CLIENT_SECRET]
// MCP_URL [TOOL] [TOOL_ARGS=json] [SCOPE] [PROTOCOL=2025-11-25|2026-07-28] [TRACE=1]
// ID_TOKEN; without it the SDK's own OpenID Connect login runs: the driver prints the URL to sign in
// at on standard error, and reads from standard input the URL that the sign-in redirects to
// (REDIRECT_URI, where nothing listens, is http://127.0.0.1:8765/callback unless given).
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/auth/extauth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"
)

const sdk = "github.com/modelcontextprotocol/go-sdk"

type report struct {
	OK       bool     `json:"ok"`
	Version  string   `json:"version"`
	Protocol string   `json:"protocol,omitempty"`
	Tools    []string `json:"tools,omitempty"`
	Result   any      `json:"result,omitempty"`
	Scopes   []any    `json:"scopes"` // of each access token
	Steps    []string `json:"steps"`
	Error    string   `json:"error,omitempty"`
}

// tracer notes each request that the SDK sends, from whichever goroutine.
type tracer struct {
	report *report
	lock   sync.Mutex
}

func (t *tracer) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	t.lock.Lock()
	defer t.lock.Unlock()
	t.report.Steps = append(t.report.Steps, fmt.Sprintf("%s %s %d", req.Method, req.URL, resp.StatusCode))
	if os.Getenv("TRACE") != "" {
		json.NewEncoder(os.Stderr).Encode(map[string]any{
			"method": req.Method, "url": req.URL.String(), "headers": req.Header, "body": string(body),
			"status": resp.StatusCode, "wwwAuthenticate": resp.Header.Get("WWW-Authenticate"),
		})
	}
	return resp, nil
}

// stepUp adds what a challenge asks for to the scopes of the configuration: the SDK's handler runs the
// whole flow again at a 403, but always with the scopes that it was configured with.
type stepUp struct {
	*extauth.EnterpriseHandler
	config *extauth.EnterpriseHandlerConfig
	report *report
}

func (s stepUp) Authorize(ctx context.Context, req *http.Request, resp *http.Response) error {
	challenges, err := oauthex.ParseWWWAuthenticate(resp.Header.Values("WWW-Authenticate"))
	if err != nil {
		return err
	}
	for _, challenge := range challenges {
		for _, scope := range strings.Fields(challenge.Params["scope"]) {
			if !slices.Contains(s.config.MCPScopes, scope) {
				s.config.MCPScopes = append(s.config.MCPScopes, scope)
			}
		}
	}
	if err := s.EnterpriseHandler.Authorize(ctx, req, resp); err != nil {
		return err
	}
	source, err := s.TokenSource(ctx)
	if err != nil {
		return err
	}
	token, err := source.Token()
	if err != nil {
		return err
	}
	s.report.Scopes = append(s.report.Scopes, token.Extra("scope"))
	return nil
}

// signIn lets whoever started the driver be the browser.
func signIn(_ context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
	fmt.Fprintln(os.Stderr, args.URL)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && line == "" {
		return nil, err
	}
	callback, err := url.Parse(strings.TrimSpace(line))
	if err != nil {
		return nil, err
	}
	query := callback.Query()
	return &auth.AuthorizationResult{Code: query.Get("code"), State: query.Get("state"), Iss: query.Get("iss")}, nil
}

func credentials(of string) *oauthex.ClientCredentials {
	found := &oauthex.ClientCredentials{ClientID: os.Getenv(of + "_CLIENT_ID")}
	if secret := os.Getenv(of + "_CLIENT_SECRET"); secret != "" {
		found.ClientSecretAuth = &oauthex.ClientSecretAuth{ClientSecret: secret}
	}
	return found
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func run(ctx context.Context, report *report) error {
	client := &http.Client{Transport: &tracer{report: report}}
	idToken := (&oauth2.Token{}).WithExtra(map[string]any{"id_token": os.Getenv("ID_TOKEN")})
	if os.Getenv("ID_TOKEN") == "" {
		var err error
		idToken, err = extauth.PerformOIDCLogin(ctx, &extauth.OIDCLoginConfig{
			IssuerURL:   os.Getenv("IDP_ISSUER"),
			Credentials: credentials("IDP"),
			RedirectURL: or(os.Getenv("REDIRECT_URI"), "http://127.0.0.1:8765/callback"),
			Scopes:      []string{"openid"},
			HTTPClient:  client,
		}, signIn)
		if err != nil {
			return err
		}
	}
	config := &extauth.EnterpriseHandlerConfig{
		IdPIssuerURL:     os.Getenv("IDP_ISSUER"),
		IdPCredentials:   credentials("IDP"),
		MCPAuthServerURL: os.Getenv("RAS_ISSUER"),
		MCPResourceURI:   os.Getenv("MCP_URL"),
		MCPCredentials:   credentials("RAS"),
		MCPScopes:        strings.Fields(os.Getenv("SCOPE")),
		IDTokenFetcher:   func(context.Context) (*oauth2.Token, error) { return idToken, nil },
		HTTPClient:       client,
	}
	handler, err := extauth.NewEnterpriseHandler(config)
	if err != nil {
		return err
	}
	transport := &mcp.StreamableClientTransport{
		Endpoint:     os.Getenv("MCP_URL"),
		HTTPClient:   client,
		OAuthHandler: stepUp{handler, config, report},
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "go-xaa", Version: "1.0.0"}, nil).
		Connect(ctx, transport, &mcp.ClientSessionOptions{ProtocolVersion: os.Getenv("PROTOCOL")})
	if err != nil {
		return err
	}
	defer session.Close()
	report.Protocol = session.InitializeResult().ProtocolVersion
	list, err := session.ListTools(ctx, nil)
	if err != nil {
		return err
	}
	for _, tool := range list.Tools {
		report.Tools = append(report.Tools, tool.Name)
	}
	if tool := os.Getenv("TOOL"); tool != "" {
		arguments := json.RawMessage(or(os.Getenv("TOOL_ARGS"), "{}"))
		result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: arguments})
		if err != nil {
			return err
		}
		report.Result = result.StructuredContent
		if result.IsError {
			return fmt.Errorf("%s says: %v", tool, result.GetError())
		}
	}
	return nil
}

func main() {
	report := &report{Scopes: []any{}, Steps: []string{}}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == sdk {
				report.Version = module.Version
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := run(ctx, report); err != nil {
		report.Error = err.Error()
	}
	report.OK = report.Error == ""
	json.NewEncoder(os.Stdout).Encode(report)
	if !report.OK {
		os.Exit(1)
	}
}
