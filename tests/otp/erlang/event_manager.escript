#!/usr/bin/env escript
%% What gen_event does with its handlers, as JSON: one log for each scenario.
%%
%%     escript event_manager.escript > event_manager.json
%%
%% A handler logs what it is asked and does what the event says: {Name, #{HandlerId => Action}}.
-mode(compile).
-behaviour(gen_event).
-export([init/1, handle_event/2, handle_call/2, handle_info/2, terminate/2]).

main(_) ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    Logs = [[io_lib:format("\"~s\": [~s]", [Name, lists:join(", ", [["\"", L, "\""] || L <- run(Fun)])])]
            || {Name, Fun} <- scenarios()],
    io:format("{~n~s~n}~n", [lists:join(",\n", Logs)]).

run(Fun) ->
    Logger = self(),
    {ok, M} = gen_event:start_link(),
    %% A process of its own, so that its death ends its supervised handlers.
    {Adder, Ref} = spawn_monitor(fun() -> process_flag(trap_exit, true), Fun(M, Logger) end),
    receive {'DOWN', Ref, process, Adder, _} -> ok end,
    timer:sleep(20),
    catch gen_event:stop(M),
    flushed().

flushed() -> receive {log, L} -> [L | flushed()]; _ -> flushed() after 0 -> [] end.

h(Id) -> {?MODULE, Id}.
add(M, L, Id) -> gen_event:add_handler(M, h(Id), {L, Id}).
sup(M, L, Id) -> gen_event:add_sup_handler(M, h(Id), {L, Id}).
send(M, Name, By) -> gen_event:sync_notify(M, {Name, By}).
which(M, L) -> log(L, "which ~p", [[I || {_, I} <- gen_event:which_handlers(M)]]).
told(L) ->
    receive {gen_event_EXIT, {_, Id}, Reason} -> log(L, "told ~s ~s", [Id, reason(Reason)]), told(L) after 20 -> ok end.

reason({'EXIT', R}) -> R;
reason({swapped, {_, New}, _}) -> io_lib:format("swapped to ~s", [New]);
reason(R) -> io_lib:format("~p", [R]).

scenarios() -> [
    {order, fun(M, L) -> [add(M, L, I) || I <- [a, b, c]], which(M, L), send(M, e, #{}) end},
    {remove_itself, fun(M, L) ->
        [add(M, L, I) || I <- [a, b]], send(M, e1, #{a => remove}), send(M, e2, #{}), which(M, L) end},
    {crash_removes_only_the_handler, fun(M, L) ->
        [add(M, L, I) || I <- [a, b, c]], send(M, e1, #{b => crash}), send(M, e2, #{}), which(M, L) end},
    {delete, fun(M, L) ->
        [add(M, L, I) || I <- [a, b]],
        log(L, "deleted ~p", [gen_event:delete_handler(M, h(a), bye)]),
        log(L, "deleted ~p", [gen_event:delete_handler(M, h(a), bye)]), which(M, L) end},
    {swap, fun(M, L) ->
        [add(M, L, I) || I <- [a, b]],
        ok = gen_event:swap_handler(M, {h(a), swapping}, {h(n), {L, n}}), which(M, L), send(M, e, #{}) end},
    {swap_of_none_adds, fun(M, L) ->
        ok = gen_event:swap_handler(M, {h(a), swapping}, {h(n), {L, n}}), which(M, L) end},
    {swap_itself, fun(M, L) ->
        [add(M, L, I) || I <- [a, b]], send(M, e, #{b => swap}), which(M, L) end},
    {init_fails, fun(M, L) ->
        log(L, "added ~p", [element(1, gen_event:add_handler(M, h(x), {L, crash}))]), which(M, L) end},
    {call, fun(M, L) ->
        add(M, L, a), log(L, "answer ~p", [gen_event:call(M, h(a), question)]),
        log(L, "answer ~p", [gen_event:call(M, h(z), question)]),
        {error, _} = gen_event:call(M, h(a), crash), which(M, L) end},
    {sup_crash, fun(M, L) -> sup(M, L, a), add(M, L, b), send(M, e, #{a => crash}), told(L), which(M, L) end},
    {sup_remove, fun(M, L) -> sup(M, L, a), send(M, e, #{a => remove}), told(L) end},
    {sup_delete, fun(M, L) -> sup(M, L, a), gen_event:delete_handler(M, h(a), bye), told(L) end},
    {sup_swap, fun(M, L) ->
        sup(M, L, a), gen_event:swap_handler(M, {h(a), swapping}, {h(n), {L, n}}), told(L) end},
    {sup_swap_sup, fun(M, L) ->
        sup(M, L, a), gen_event:swap_sup_handler(M, {h(a), swapping}, {h(n), {L, n}}), told(L),
        send(M, e, #{n => crash}), told(L) end},
    {adder_dies, fun(M, L) -> sup(M, L, a), add(M, L, b), exit(gone) end},
    {adder_ends, fun(M, L) -> sup(M, L, a), add(M, L, b) end},
    {stop, fun(M, L) -> sup(M, L, a), add(M, L, b), gen_event:stop(M), told(L) end},
    {info, fun(M, L) -> [add(M, L, I) || I <- [a, b]], M ! hello, which(M, L) end}
].

init({_, crash}) -> exit(no);
init({{L, Id}, {gave, Old}}) -> log(L, "~s init after ~s", [Id, Old]), {ok, {L, Id}};
init({{L, Id}, error}) -> log(L, "~s init after nobody", [Id]), {ok, {L, Id}};
init({L, Id}) -> log(L, "~s init", [Id]), {ok, {L, Id}}.

handle_event({Name, By}, {L, Id} = S) ->
    log(L, "~s event ~s", [Id, Name]),
    case maps:get(Id, By, none) of
        none -> {ok, S};
        remove -> remove_handler;
        swap -> {swap_handler, swapping, S, h(n), {L, n}};
        crash -> exit(crash)
    end.

handle_call(crash, _) -> exit(crash);
handle_call(question, {L, Id} = S) -> log(L, "~s call", [Id]), {ok, 42, S}.

handle_info(hello, {L, Id} = S) -> log(L, "~s info", [Id]), {ok, S};
handle_info(_, S) -> {ok, S}.

terminate(Why, {L, Id}) -> log(L, "~s terminate ~s", [Id, why(Why)]), {gave, Id}.

why({error, {'EXIT', _}}) -> "error";
why({stop, Reason}) -> io_lib:format("stop ~p", [Reason]);
why(Why) -> io_lib:format("~p", [Why]).

log(Logger, Format, Args) -> Logger ! {log, io_lib:format(Format, Args)}.
